"""Expression names of each dataset, in label order, and the spellings found in the wild."""

FER2013_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# CK+ has no neutral class in its labelled sequences; contempt takes its place.
CKPLUS_CLASSES = (*FER2013_CLASSES[:-1], "contempt")

AFFECTNET_CLASSES = (*FER2013_CLASSES, "contempt")
# As its annotation files number them.
AFFECTNET_NUMBERS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")

SYNONYMS = {"anger": "angry", "happiness": "happy", "sadness": "sad"}


def canonical(name: str) -> str:
    """Give a directory's or column's emotion word its one spelling: `Anger` -> `angry`."""
    word = name.strip().lower()
    return SYNONYMS.get(word, word)
