"""Faces with seven expressions, drawn from action units and a seed.

A face is made in four steps, in the order of this file: who it is (`_identity`, the same in all images of a subject),
what the muscles do (`_action_units`, a row of `PROTOTYPES` at a random intensity), the drawing (a `_Sketch` in face
units) and the photograph (pose, light, blur and noise: `_expose`, `render_face`).

The action units (AU) are those of the Facial Action Coding System: P. Ekman and W. V. Friesen, "Facial Action Coding
System", Consulting Psychologists Press, 1978. Which of them make up an expression follows the prototypes of its
Investigator's Guide (P. Ekman, W. V. Friesen and J. C. Hager, 2002); how strong each one is here is our own choice.
AU 1 raises the inner brow, 2 the outer brow, 4 lowers the brow, 5 raises the upper lid, 6 raises the cheek, 7 tightens
the lids, 9 wrinkles the nose, 10 raises the upper lip, 12 pulls the lip corners up, 15 presses them down, 17 raises the
chin, 20 stretches the lips, 23 tightens them, 25 parts them, 26 drops the jaw.

Face units: the origin lies between the eyes and the nose, x runs to the right, y down; the skull ends at y = -1, the
relaxed chin at y = 1. The coefficient of an action unit says how far it moves a point, in these units, at intensity 1;
they were set by eye, on contact sheets. Tones are grey levels; most are fractions of the subject's skin.
"""

import functools
from types import SimpleNamespace

import cv2
import numpy as np

from fer_lightning.labels import FER2013_CLASSES

# Raise this with every change that alters pixels: it makes old caches stale.
DRAWING_VERSION = 1

PROTOTYPES: dict[str, dict[int, float]] = {
    "angry": {4: 1.0, 5: 0.6, 7: 0.6, 17: 0.3, 23: 1.0},
    "disgust": {4: 0.4, 6: 0.3, 7: 0.5, 9: 1.0, 10: 1.0, 15: 0.3, 17: 0.3, 25: 0.5},
    "fear": {1: 1.0, 2: 0.6, 4: 0.7, 5: 1.0, 20: 1.0, 25: 0.8, 26: 0.25},
    "happy": {6: 0.9, 12: 1.0, 25: 0.9},
    "sad": {1: 1.0, 4: 0.7, 7: 0.3, 15: 0.9, 17: 0.5},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.8, 25: 0.5, 26: 1.0},
    "neutral": {},
}
ACTION_UNITS = sorted({unit for prototype in PROTOTYPES.values() for unit in prototype})
# Factor of the prototype, drawn for each image: at the lower bound it is hard to tell from a neutral face.
STRENGTH = (0.4, 1.0)

# The ranges in which subjects differ: tones in grey levels, lengths and positions in face units.
IDENTITY = {
    "skin": (130, 215),
    "hair": (15, 110),
    "iris": (30, 90),
    "head_width": (0.68, 0.82),
    "jaw_taper": (0.05, 0.3),
    "hairline": (-0.92, -0.7),
    "hair_end": (-0.6, 1.2),
    "eye_x": (0.3, 0.38),
    "eye_width": (0.14, 0.18),
    "eye_height": (0.06, 0.09),
    "eye_tilt": (-0.02, 0.03),
    "brow_y": (-0.4, -0.33),
    "brow_arch": (0.0, 0.05),
    "brow_thickness": (0.025, 0.05),
    "nose_length": (0.3, 0.4),
    "nose_width": (0.11, 0.16),
    "mouth_y": (0.52, 0.58),
    "mouth_width": (0.24, 0.31),
    "lip_height": (0.045, 0.08),
}
GLASSES_SHARE = 0.12  # of the subjects
OCCLUSION_SHARE = 0.12  # of the images

SUPERSAMPLING = 4  # canvas pixels per image pixel, along each axis
SUBPIXEL_BITS = 4  # fraction of the canvas coordinates, OpenCV's `shift`

Muscles = dict[int, float]  # intensity of each action unit, 0 to about 1
Point = tuple[float, float]

ANGLES = np.linspace(0.0, 2 * np.pi, 33)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
BOTH_SIDES = np.array([[[1.0, 1.0]], [[-1.0, 1.0]]])
T = np.linspace(0.0, 1.0, 11)
# Row t weighs the first, middle and last point of the parabola that passes through all three.
ARC = np.stack([(2 * T - 1) * (T - 1), 4 * T * (1 - T), T * (2 * T - 1)], axis=1)
# From one mouth corner (-1) to the other (1), dense at the corners, where an open mouth is round.
ACROSS = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 13))


@functools.lru_cache(maxsize=1024)
def _identity(subject: int) -> SimpleNamespace:
    """Draw one value for each row of `IDENTITY`, and whether the subject `wears_glasses`."""
    # The spawn key keeps this stream apart from that of an image whose seed happens to be the same number.
    rng = np.random.default_rng(np.random.SeedSequence(subject, spawn_key=(0,)))
    traits = {name: rng.uniform(*bounds) for name, bounds in IDENTITY.items()}
    return SimpleNamespace(**traits, wears_glasses=rng.uniform() < GLASSES_SHARE)


def _action_units(expression: int, rng: np.random.Generator) -> Muscles:
    """Draw the intensity of every action unit: its share in the expression, and a little of it in any other."""
    prototype = PROTOTYPES[FER2013_CLASSES[expression]]
    strength = rng.uniform(*STRENGTH)
    jitter = rng.uniform(0.7, 1.2, len(ACTION_UNITS)).tolist()
    crosstalk = np.abs(rng.normal(0.0, 0.06, len(ACTION_UNITS))).tolist()
    return {
        unit: prototype.get(unit, 0.0) * strength * factor + extra
        for unit, factor, extra in zip(ACTION_UNITS, jitter, crosstalk, strict=True)
    }


class _Sketch:
    """Shapes in face units, painted in the order of the calls: points (n, 2), or (2, n, 2) for a pair."""

    def __init__(self) -> None:
        self._shapes: list[tuple[np.ndarray, float, float]] = []

    def fill(self, points: np.ndarray, tone: float) -> None:
        self._shapes.append((points, tone, 0.0))

    def line(self, points: np.ndarray, tone: float, width: float = 0.025) -> None:
        self._shapes.append((points, tone, width))

    def paint(self, canvas: np.ndarray, *, roll: float, yaw: float, scale: float, shift: np.ndarray) -> None:
        """Pose all points at once, `scale` and `shift` in pixels, and put the shapes on the canvas."""
        points = np.concatenate([points.reshape(-1, 2) for points, _, _ in self._shapes])
        # A head that turns: the middle of the face moves sideways, its outline stays.
        points[:, 0] += yaw * np.maximum(1.0 - points[:, 0] ** 2, 0.0)
        rotation = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        pixels = np.rint((scale * points @ rotation + shift) * 2**SUBPIXEL_BITS).astype(np.int32)
        start = 0
        for shape, tone, width in self._shapes:
            end = start + shape.size // 2
            polygons = pixels[start:end].reshape(-1, shape.shape[-2], 2)
            start = end
            if width:
                thickness = max(1, round(width * scale))
                cv2.polylines(canvas, polygons, False, tone, thickness, cv2.LINE_8, SUBPIXEL_BITS)
            else:
                cv2.fillPoly(canvas, polygons, tone, cv2.LINE_8, SUBPIXEL_BITS)


def _arc(*first_middle_last: Point) -> np.ndarray:
    return ARC @ np.array(first_middle_last)


def _xy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([x, y], axis=1)


def _between(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Outline of the area between two curves that both run to the right."""
    return np.concatenate([above, below[::-1]])


def _draw_head(sketch: _Sketch, who: SimpleNamespace, au: Muscles, light_x: float) -> None:
    x, y = CIRCLE.T
    chin = 1.0 + 0.12 * au[26] - 0.03 * au[17]
    outline = _xy(who.head_width * x * (1 - who.jaw_taper * np.maximum(y, 0) ** 2), np.where(y > 0, chin, 1.0) * y)
    shade = 0.8 * who.skin
    if who.hair_end > 0.3:  # else the hair is short
        sketch.fill(_xy(1.25 * who.head_width * np.sign(x) * np.abs(x) ** 0.6, who.hair_end * y), who.hair)
    sketch.fill(np.array([[-0.4, 0.6], [0.4, 0.6], [0.5, 1.8], [-0.5, 1.8]]), 0.62 * who.skin)  # neck
    sketch.fill((CIRCLE * [0.09, 0.17] + [who.head_width, 0.02]) * BOTH_SIDES, shade)  # ears
    sketch.fill(1.02 * outline, shade)
    sketch.fill(outline * [0.9, 0.97] + [0.06 * light_x, -0.02], who.skin)
    across = np.linspace(-1.06, 1.06, 15)
    forehead = who.hairline + (0.1 - who.hairline) * (across / 1.06) ** 6
    crown = 0.1 - np.sqrt(1.06**2 - across**2) * 1.1
    sketch.fill(_between(_xy(who.head_width * across, crown), _xy(who.head_width * across, forehead)), who.hair)


def _draw_eyes(sketch: _Sketch, who: SimpleNamespace, au: Muscles, gaze: np.ndarray) -> None:
    half, tilt = who.eye_width, who.eye_tilt
    centres = np.array([who.eye_x, -0.1]) * BOTH_SIDES
    squint = 0.35 * au[6] + 0.4 * au[7] + 0.35 * au[9]
    upper = who.eye_height * max(1.1 + 1.1 * au[5] - 0.2 * au[4] - squint, 0.2)
    lower = who.eye_height * max(0.75 + 0.2 * au[5] - 1.6 * squint, 0.0)
    upper_lid = _arc((-half, tilt), (0.0, -upper), (half, -tilt)) * BOTH_SIDES + centres
    lower_lid = _arc((-half, tilt), (0.0, lower), (half, -tilt)) * BOTH_SIDES + centres
    iris = np.stack([0.078 * CIRCLE + gaze] * 2)
    across = iris[0, :, 0] / half
    middle, bulge = np.outer([-tilt, tilt], across), 1 - across**2
    # Clip the iris to the opening between the lids.
    iris[:, :, 1] = np.clip(iris[:, :, 1], middle - upper * bulge, middle + lower * bulge)
    sketch.fill(np.concatenate([upper_lid, lower_lid[:, ::-1]], axis=1), 150 + 0.42 * who.skin)
    sketch.fill(iris + centres, who.iris)
    sketch.fill(0.5 * (iris + gaze) + centres, 10)  # pupil
    sketch.line(upper_lid, 0.25 * who.skin, 0.035)
    sketch.line(lower_lid, 0.5 * who.skin, 0.02)
    sketch.line(upper_lid - [0, 0.05 - 0.02 * au[5]], 0.7 * who.skin, 0.02)  # crease


def _draw_brows(sketch: _Sketch, who: SimpleNamespace, au: Muscles) -> None:
    # Where AU1 lifts the inner ends, AU4 draws them together but hardly down: the oblique brows of sadness and fear.
    frown = au[4] * (1 - 0.7 * min(au[1], 1.0))
    inner = who.brow_y - 0.18 * au[1] + 0.16 * frown + 0.06 * au[9]
    outer = who.brow_y + 0.04 + 0.03 * au[1] - 0.17 * au[2] + 0.02 * au[4]
    middle = 0.5 * (inner + outer) - who.brow_arch - 0.02 - 0.05 * au[2]
    spine = _arc((0.15 - 0.06 * au[4], inner), (0.36 - 0.02 * au[4], middle), (0.58, outer))
    half = _xy(np.zeros(len(T)), who.brow_thickness * (1.2 - 0.8 * T))
    sketch.fill(_between(spine - half, spine + half) * BOTH_SIDES, 0.75 * who.hair)


def _draw_nose(sketch: _Sketch, who: SimpleNamespace, au: Muscles) -> Point:
    """Draw the nose and return the right end of its wing."""
    tip = who.nose_length - 0.1 - 0.05 * au[9] - 0.02 * au[10]
    half = who.nose_width * (1 + 0.15 * au[9] + 0.1 * au[10] + 0.08 * au[12])
    wing = _arc((0.8 * half, tip - 0.08), (half, tip - 0.01), (0.7 * half, tip + 0.03))
    sketch.line(_arc((0.07, -0.12), (0.05, tip - 0.15), (0.06, tip - 0.08)), 0.8 * who.skin, 0.035)
    sketch.line(wing * BOTH_SIDES, 0.6 * who.skin)
    sketch.fill((CIRCLE * [0.035, 0.018] + [0.5 * half, tip + 0.02]) * BOTH_SIDES, 0.25 * who.skin)
    sketch.line(_arc((-0.4 * half, tip + 0.03), (0, tip + 0.05), (0.4 * half, tip + 0.03)), 0.65 * who.skin, 0.02)
    return half, tip


def _draw_mouth(sketch: _Sketch, who: SimpleNamespace, au: Muscles) -> Point:
    """Draw the mouth and return its right corner."""
    half = who.mouth_width * (1 + 0.3 * au[12] + 0.35 * au[20] - 0.15 * au[23] - 0.3 * au[26])
    corner = who.mouth_y - 0.13 * au[12] + 0.12 * au[15] + 0.03 * au[20] + 0.06 * au[26] - 0.04 * au[10]
    top = who.mouth_y + 0.04 * au[12] - 0.03 * au[25] - 0.04 * au[15] - 0.03 * au[17] - 0.1 * au[10]
    # Lips have to part by more than crosstalk before they show what is behind them.
    gap = max(0.17 * au[25] + 0.22 * au[26] + 0.07 * au[10] - 0.1 * au[23] - 0.09, 0.0)
    lip = who.lip_height * max(1 - 0.7 * au[23] - 0.25 * au[12] - 0.25 * au[20], 0.25)
    # A parabola for most mouths, towards an ellipse for a dropped jaw and a squared upper lip.
    profile = (1 - ACROSS**2) ** (1 - 0.45 * min(au[26] + 0.5 * au[10], 1.0))

    def curve(middle: float) -> np.ndarray:
        return _xy(half * ACROSS, corner + (middle - corner) * profile)

    upper_edge, lower_edge = curve(top), curve(top + gap)
    chin_side = top + gap + 1.2 * lip
    sketch.fill(_between(curve(top - 0.9 * lip), curve(chin_side)), 0.62 * who.skin)
    if gap > 0.02:
        teeth = min(0.09, gap) * min(au[10] + au[12] + au[20] + 0.15, 1.0)
        sketch.fill(_between(upper_edge, lower_edge), 0.15 * who.skin)
        sketch.fill(_between(upper_edge, np.minimum(upper_edge + np.array([0.0, teeth]), lower_edge)), 238)
    sketch.line(upper_edge, 0.25 * who.skin, 0.03)
    shadow = _arc((-0.5 * half, chin_side + 0.05), (0, chin_side + 0.07), (0.5 * half, chin_side + 0.05))
    sketch.line(shadow, 0.75 * who.skin, 0.03)
    return half, corner


def _draw_folds(sketch: _Sketch, who: SimpleNamespace, au: Muscles, wing: Point, corner: Point) -> None:
    """Draw the lines that the muscles press into the skin, given where nose and mouth ended up."""
    eye, cheek = who.eye_x, (0.5 * (wing[0] + corner[0]) + 0.12, 0.5 * (wing[1] + corner[1]) - 0.04)
    nasolabial = 0.15 + 0.6 * au[10] + 0.5 * au[12] + 0.4 * au[9]
    forehead = 0.45 * (au[1] + au[2])
    low, high = (who.brow_y - 0.07 + share * (who.hairline - who.brow_y) for share in (0.4, 0.7))
    folds = (
        (nasolabial, (wing[0] + 0.03, wing[1] - 0.04), cheek, (corner[0] + 0.08, corner[1] + 0.02)),
        (forehead, (0.0, low - 0.03), (0.18, low - 0.02), (0.35, low)),
        (forehead, (0.0, high - 0.03), (0.18, high - 0.02), (0.35, high)),
        (au[4], (0.06, -0.34), (0.045, -0.27), (0.06, -0.2)),  # between the brows
        (au[9], (0.0, -0.12), (0.07, -0.17), (0.13, -0.12)),  # root of the nose
        (au[9], (0.0, -0.03), (0.07, -0.08), (0.13, -0.03)),
        (0.8 * au[6] + 0.3 * au[9], (eye - 0.16, 0.06), (eye, 0.1), (eye + 0.2, 0.02)),  # cheek, under the eye
        (au[6], (eye + 0.21, -0.12), (eye + 0.26, -0.14), (eye + 0.31, -0.18)),  # crow's feet
        (au[6], (eye + 0.21, -0.08), (eye + 0.26, -0.07), (eye + 0.31, -0.05)),
        (au[17], (0.0, 0.81), (0.06, 0.82), (0.12, 0.86)),  # chin boss
    )
    for strength, *points in folds:
        if strength > 0.15:  # below, the line could not be told from the skin
            sketch.line(_arc(*points) * BOTH_SIDES, who.skin * (1 - 0.5 * min(strength, 1.0)))


def _draw_glasses(sketch: _Sketch, who: SimpleNamespace) -> None:
    inner, outer = who.eye_x - 0.23, who.eye_x + 0.23
    sketch.line((CIRCLE * [0.23, 0.19] + [who.eye_x, -0.08]) * BOTH_SIDES, 40, 0.03)
    sketch.line(_arc((-inner, -0.1), (0, -0.13), (inner, -0.1)), 40, 0.03)
    sketch.line(np.array([[outer, -0.1], [who.head_width, -0.08]]) * BOTH_SIDES, 40, 0.03)


def _draw_occluder(sketch: _Sketch, who: SimpleNamespace, rng: np.random.Generator) -> None:
    """Put a hand, a bar or a patch in front of some part of the face."""
    x, y = rng.uniform(-0.7, 0.7, 2)
    tone = rng.uniform(20, 235)
    kind = rng.choice(["hand", "bar", "patch"])
    if kind == "hand":
        for finger in range(4):
            tip, knuckle = [x, y + 0.16 * finger], [np.copysign(1.5, x), y + 0.3 + 0.16 * finger]
            sketch.line(np.array([tip, knuckle]), 0.45 * who.skin, 0.17)
            sketch.line(np.array([tip, knuckle]), 0.92 * who.skin, 0.13)
    elif kind == "bar":
        sketch.line(np.array([[x - 2, y - 0.5], [x + 2, y + 0.5]]), tone, 0.2)
    else:
        sketch.fill(0.25 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + [x, y], tone)


def _sketch_face(expression: int, subject: int, light_x: float, rng: np.random.Generator) -> _Sketch:
    sketch, who, au = _Sketch(), _identity(subject), _action_units(expression, rng)
    _draw_head(sketch, who, au, light_x)
    _draw_eyes(sketch, who, au, gaze=rng.normal(0.0, 0.015, 2))
    wing = _draw_nose(sketch, who, au)
    corner = _draw_mouth(sketch, who, au)
    _draw_folds(sketch, who, au, wing, corner)
    _draw_brows(sketch, who, au)
    if who.wears_glasses:
        _draw_glasses(sketch, who)
    if rng.uniform() < OCCLUSION_SHARE:
        _draw_occluder(sketch, who, rng)
    return sketch


def _expose(scene: np.ndarray, light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light the scene from one side, then do to it what a camera does: contrast, brightness, blur and noise."""
    ramp = np.linspace(-1.0, 1.0, len(scene), dtype=np.float32)
    contrast, brightness = rng.uniform(0.8, 1.2), rng.uniform(-20.0, 20.0)
    lit = scene * (1.0 + light[0] * ramp + light[1] * ramp[:, None]) - 128.0
    image = cv2.GaussianBlur(contrast * lit + 128.0 + brightness, (3, 3), rng.uniform(0.2, 0.7))
    image += rng.uniform(1.0, 6.0) * rng.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def render_face(expression: int, *, subject: int, seed: int, size: int = 48) -> np.ndarray:
    """Draw one face; the same arguments always give the same pixels.

    Args:
        expression: Index into `FER2013_CLASSES`.
        subject: Number of the person, from 0.
        seed: Seed of everything except the subject: strength of the expression, pose, light, occlusion, camera. The
            same seed with another expression or subject gives the same snapshot of it.
        size: Side of the image in pixels.

    Returns:
        uint8 (size, size).
    """
    rng = np.random.default_rng(seed)
    side = size * SUPERSAMPLING
    angle = rng.uniform(0.0, 2 * np.pi)
    light = rng.uniform(0.0, 0.25) * np.array([np.cos(angle), np.sin(angle)], np.float32)
    pose = {
        "roll": rng.normal(0.0, 0.09),
        "yaw": rng.uniform(-0.15, 0.15),
        "scale": side * rng.uniform(0.5, 0.6),
        "shift": side * rng.uniform(0.455, 0.545, 2),
    }
    canvas = np.full((side, side), rng.uniform(40, 215), np.uint8)
    _sketch_face(expression, subject, np.cos(angle), rng).paint(canvas, **pose)
    return _expose(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), light, rng)
