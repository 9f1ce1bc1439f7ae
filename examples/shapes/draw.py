"""Pictures of coloured shapes, drawn by code, with captions that name colours and shapes.

One or two shapes of different colours, turned at random and at times overlapping, stand on a dark
ground. Ground and shapes have a texture of soft gradients, waves and grain: too weak for Canny's
thresholds, as a photograph's smooth parts are. Neither place nor size is in the caption: only a
condition can tell them.

    python examples/shapes/draw.py --out pictures --count 2000

writes them as PNGs, each with its caption beside it, and truth.json with the shapes of each.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

SIDE = 64
"""Height and width of a picture, in pixels."""

COLOURS = {
    "red": (220, 40, 40),
    "orange": (240, 125, 20),
    "yellow": (250, 225, 60),
    "green": (40, 170, 60),
    "cyan": (60, 205, 220),
    "blue": (45, 75, 225),
    "purple": (150, 50, 190),
    "white": (240, 240, 240),
}
"""Name -> RGB. Any two differ by 75 or more in one channel, and so in an edge for Canny."""

CORNERS = {"circle": 0, "square": 4, "triangle": 3}
"""Name -> how many corners the shape has."""

_ZOOM = 4  # drawn larger and averaged down: smooth borders
_SMALLEST, _LARGEST = 9, 15  # radius of the circle around a shape, in pixels
_MOST_OVERLAP = 1 / 3  # of the sum of the two radii
_GRAIN = 3  # standard deviation, in 8-bit levels
_SHADING = 12  # from one side of a picture to the other, in 8-bit levels
_WAVE = 5  # amplitude, in 8-bit levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One shape.

    Attributes:
        colour: a key of `COLOURS`.
        kind: a key of `CORNERS`.
        x: column of its centre, in pixels.
        y: row of its centre, in pixels.
        radius: of the circle through its corners, in pixels.
        turn: radians.
    """

    colour: str
    kind: str
    x: float
    y: float
    radius: float
    turn: float

    @property
    def name(self) -> str:
        """Colour and kind, as the caption has them."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawn picture.

    Attributes:
        image: RGB uint8 (64, 64, 3).
        shapes: from back to front.
    """

    image: np.ndarray
    shapes: tuple[Shape, ...]

    @property
    def caption(self) -> str:
        """Colours and shapes in words, for example ``a red circle and a blue square``."""
        return " and ".join(
            f"an {s.name}" if s.name[0] == "o" else f"a {s.name}" for s in self.shapes
        )


def draw_picture(generator: np.random.Generator) -> Picture:
    """Draw one picture with the random numbers of `generator`."""
    shapes = _choose_shapes(generator)
    ground = generator.uniform((18, 20, 34), (60, 62, 84))
    canvas = ground + _texture(generator)
    for shape in shapes:
        share = cover(shape)[..., None]
        paint = np.asarray(COLOURS[shape.colour]) + _texture(generator)
        canvas = canvas * (1 - share) + paint * share
    canvas = canvas + generator.normal(0, _GRAIN, canvas.shape)
    return Picture(image=canvas.clip(0, 255).round().astype(np.uint8), shapes=shapes)


def write_pictures(folder: Path, count: int, seed: int) -> None:
    """Write pictures, captions and truth.json; picture i is the same whatever the count.

    Args:
        folder: is made.
        count: of pictures.
        seed: of the first; picture i has the generator of ``(seed, i)``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number in range(count):
        made = draw_picture(np.random.default_rng((seed, number)))
        path = folder / f"{number:06d}.png"
        cv2.imwrite(str(path), made.image[:, :, ::-1])
        path.with_suffix(".txt").write_text(made.caption + "\n")
        truth[path.stem] = [asdict(shape) for shape in made.shapes]
    (folder / "truth.json").write_text(json.dumps(truth))


def cover(shape: Shape) -> np.ndarray:
    """Return which share of each pixel `shape` covers, float64 (64, 64), 0..1."""
    large = np.zeros((SIDE * _ZOOM, SIDE * _ZOOM), np.uint8)
    centre = np.asarray((shape.x, shape.y))
    corners = CORNERS[shape.kind]
    if corners:
        angles = shape.turn + 2 * np.pi * np.arange(corners) / corners
        points = centre + shape.radius * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        cv2.fillPoly(large, [np.rint(points * _ZOOM).astype(np.int32)], 255)
    else:
        middle = tuple(np.rint(centre * _ZOOM).astype(int).tolist())
        cv2.circle(large, middle, round(shape.radius * _ZOOM), 255, cv2.FILLED)
    return cv2.resize(large, (SIDE, SIDE), interpolation=cv2.INTER_AREA) / 255


def _choose_shapes(generator: np.random.Generator) -> tuple[Shape, ...]:
    number = int(generator.integers(1, 3))
    colours = generator.permutation(list(COLOURS))[:number]
    while True:
        shapes = tuple(_choose_shape(generator, str(colour)) for colour in colours)
        if number == 1 or _far_enough(*shapes):
            return shapes


def _choose_shape(generator: np.random.Generator, colour: str) -> Shape:
    radius = generator.uniform(_SMALLEST, _LARGEST)
    x, y = generator.uniform(radius + 1, SIDE - radius - 1, 2)
    kind = str(generator.choice(list(CORNERS)))
    turn = float(generator.uniform(0, 2 * np.pi))
    return Shape(colour=colour, kind=kind, x=x, y=y, radius=radius, turn=turn)


def _far_enough(one: Shape, other: Shape) -> bool:
    distance = np.hypot(one.x - other.x, one.y - other.y)
    return bool(distance >= (one.radius + other.radius) * (1 - _MOST_OVERLAP))


def _texture(generator: np.random.Generator) -> np.ndarray:
    """Return a soft gradient and soft waves in random directions, float64 (64, 64, 1)."""
    shade = generator.uniform(0, _SHADING) * _ramp(generator) / SIDE
    length = generator.uniform(8, 20)
    wave = generator.uniform(0, _WAVE) * np.sin(2 * np.pi * _ramp(generator) / length)
    return (shade + wave)[..., None]


def _ramp(generator: np.random.Generator) -> np.ndarray:
    """Return each pixel's distance from the middle along a random direction, in pixels."""
    rows, columns = np.mgrid[-SIDE / 2 : SIDE / 2, -SIDE / 2 : SIDE / 2]
    angle = generator.uniform(0, 2 * np.pi)
    return np.cos(angle) * columns + np.sin(angle) * rows


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_pictures(arguments.out, arguments.count, arguments.seed)


if __name__ == "__main__":
    _main()
