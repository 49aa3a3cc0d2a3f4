"""Expression names of each dataset, in label order, and the spellings found in the wild."""

from unicodedata import normalize

FER2013_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# CK+ has no neutral class in its labelled sequences; contempt takes its place.
CKPLUS_CLASSES = (*FER2013_CLASSES[:-1], "contempt")

AFFECTNET_CLASSES = (*FER2013_CLASSES, "contempt")
# In the order of the numbers in its annotation files.
AFFECTNET_NUMBERS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")

SYNONYMS = {"anger": "angry", "happiness": "happy", "sadness": "sad"}


def canonical(name: str) -> str:
    """Map the emotion word of a directory or column to its standard spelling: `Anger` -> `angry`."""
    word = normalize("NFC", name).strip().lower()  # some systems write an accent as a letter of its own
    return SYNONYMS.get(word, word)
