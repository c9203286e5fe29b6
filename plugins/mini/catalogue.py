"""What the mini world is made of: 26 product families, each a body with countable parts.

A family turns a :class:`Look` (colours and a count) into a :class:`Design`; a *product* is a family with one
fixed look. The benchmark's products and the training world's come from different families, so a defect on a
benchmark product is new to every model trained on the training world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from plugins.mini import shapes
from plugins.mini.canvas import Colour, Material, turn
from plugins.mini.shapes import Distance

COLOURS: dict[str, Colour] = {
    "silver": (0.70, 0.72, 0.75),
    "gold": (0.80, 0.62, 0.26),
    "copper": (0.72, 0.42, 0.26),
    "black": (0.13, 0.13, 0.15),
    "white": (0.90, 0.90, 0.88),
    "red": (0.76, 0.16, 0.15),
    "green": (0.14, 0.45, 0.24),
    "blue": (0.16, 0.32, 0.68),
    "yellow": (0.90, 0.78, 0.20),
    "purple": (0.48, 0.24, 0.58),
}
BACKDROPS: dict[str, Colour] = {
    "grey": (0.46, 0.47, 0.49),
    "dark": (0.20, 0.21, 0.23),
    "beige": (0.66, 0.60, 0.50),
    "teal": (0.28, 0.42, 0.44),
}
METALS = ("silver", "gold", "copper")
TRIMS = (*METALS, "black")
PAINTS = ("white", "red", "green", "blue", "yellow", "purple", "black")
BOARDS = ("green", "blue", "red", "black", "purple")


@dataclass(frozen=True, slots=True)
class Look:
    """What tells one product of a family from another."""

    body: str
    trim: str
    count: int
    backdrop: str


@dataclass(frozen=True, slots=True)
class Element:
    """One piece of a product: an outline at a place, made of something."""

    part: str  #: what it is called
    shape: Distance
    x: float
    y: float
    reach: float  #: no point of it is farther from (x, y)
    material: Material
    degrees: float = 0.0
    depth: str = "raised"  #: ``raised``, ``sunk`` (a hole: dark, its far rim lit) or ``print`` (flat on the surface)

    @property
    def outline(self) -> Distance:
        """Its signed distance in product coordinates."""
        return shapes.placed(self.shape, self.x, self.y, self.degrees)


@dataclass(frozen=True, slots=True)
class Design:
    """A product as drawn: the body first, then its pieces in order."""

    family: Family
    look: Look
    body: Element
    elements: tuple[Element, ...]

    @property
    def parts(self) -> tuple[Element, ...]:
        """The pieces that are counted: those with the family's part name."""
        return tuple(element for element in self.elements if element.part == self.family.part)


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of product."""

    noun: str
    dataset: str  #: the sub-dataset that it belongs to
    outline: str  #: in words, for questions
    part: str  #: what is counted
    counts: tuple[int, ...]
    bodies: tuple[str, ...]
    trims: tuple[str, ...]
    build: Callable[[Look], tuple[Element, tuple[Element, ...]]]
    summary: str  #: how a normal one looks, with ``{count}``, ``{trim}``, ``{body}``

    def design(self, look: Look) -> Design:
        """The family's product with this look."""
        body, elements = self.build(look)
        return Design(self, look, body, elements)

    def random_look(self, rng: np.random.RandomState) -> Look:
        """Any look that the family allows; trim and body always differ."""
        body = self.bodies[int(rng.random_sample() * len(self.bodies))]
        trims = [trim for trim in self.trims if trim != body]
        return Look(
            body,
            trims[int(rng.random_sample() * len(trims))],
            self.counts[int(rng.random_sample() * len(self.counts))],
            tuple(BACKDROPS)[int(rng.random_sample() * len(BACKDROPS))],
        )


def metal(colour: str) -> Material:
    """Brushed metal."""
    return Material(COLOURS[colour], grain=0.05, stretch=6, coarse=30, bevel=0.06, gloss=0.5)


def plastic(colour: str) -> Material:
    """Moulded plastic."""
    return Material(COLOURS[colour], grain=0.02, coarse=18, bevel=0.05, gloss=0.35)


def card(colour: str) -> Material:
    """Printed card or film."""
    return Material(COLOURS[colour], grain=0.03, coarse=26, bevel=0.03, gloss=0.2)


def ink(colour: str) -> Material:
    """Print: no edge, no texture of its own."""
    return Material(COLOURS[colour], grain=0.01, bevel=0.01, gloss=0.0)


SUNK = Material((0.07, 0.07, 0.08), grain=0.02, bevel=0.05, gloss=-0.9)


def body(shape: Distance, reach: float, material: Material, x: float = 0, y: float = 0) -> Element:
    """The product's main piece."""
    return Element("body", shape, x, y, reach, material)


def around(radius: float, count: int, start: float = -90) -> list[tuple[float, float]]:
    """Places on a circle."""
    places = []
    for k in range(count):
        cos, sin = turn(start + 360 * k / count)
        places.append((radius * cos, radius * sin))
    return places


def along(width: float, count: int, y: float = 0.0) -> list[tuple[float, float]]:
    """Places in a row, evenly spread over -width..width."""
    step = 2 * width / count
    return [(-width + step * (k + 0.5), y) for k in range(count)]


def grid(width: float, height: float, count: int) -> list[tuple[float, float]]:
    """Places in two rows (one, when the count is odd or below four)."""
    if count < 4 or count % 2:
        return along(width, count)
    half = count // 2
    return along(width, half, -height / 2) + along(width, half, height / 2)


def pieces(
    part: str,
    places: list[tuple[float, float]],
    shape: Distance,
    reach: float,
    material: Material,
    depth: str = "raised",
) -> tuple[Element, ...]:
    """The same piece at several places."""
    return tuple(Element(part, shape, x, y, reach, material, depth=depth) for x, y in places)


def holes(part: str, places: list[tuple[float, float]], radius: float) -> tuple[Element, ...]:
    """Round holes."""
    return pieces(part, places, shapes.disc(radius), radius, SUNK, "sunk")


Built = tuple[Element, tuple[Element, ...]]


def _gear(look: Look) -> Built:
    hub = Element("hub", shapes.disc(0.2), 0, 0, 0.2, plastic(look.trim))
    return body(shapes.gear(0.62, 12), 0.85, metal(look.body)), (
        *holes("hole", around(0.4, look.count), 0.11),
        hub,
    )


def _washer(look: Look) -> Built:
    ring = shapes.minus(shapes.disc(0.72), shapes.disc(0.3))
    return body(ring, 0.72, metal(look.body)), pieces(
        "rivet", around(0.51, look.count), shapes.disc(0.11), 0.11, metal(look.trim)
    )


def _flange(look: Look) -> Built:
    centre = Element("collar", shapes.disc(0.28), 0, 0, 0.28, metal(look.trim))
    return body(shapes.disc(0.74), 0.74, metal(look.body)), (
        *holes("hole", around(0.53, look.count), 0.1),
        centre,
    )


def _hex_nut(look: Look) -> Built:
    nut = shapes.minus(shapes.polygon(6, 0.66), shapes.disc(0.3))
    return body(nut, 0.78, metal(look.body)), pieces(
        "mark", around(0.49, look.count), shapes.disc(0.08), 0.08, ink(look.trim), "print"
    )


def _bracket(look: Look) -> Built:
    angle = shapes.union(
        shapes.placed(shapes.box(0.72, 0.24, 0.05), 0, 0.45), shapes.placed(shapes.box(0.24, 0.68, 0.05), -0.48, 0)
    )
    pin = Element("pin", shapes.disc(0.12), -0.48, -0.42, 0.12, metal(look.trim))
    places = along(0.56, look.count, 0.45)
    return body(angle, 1.0, metal(look.body)), (*holes("hole", places, 0.1), pin)


def _bearing(look: Look) -> Built:
    ring = shapes.minus(shapes.disc(0.74), shapes.disc(0.26))
    return body(ring, 0.74, metal(look.body)), pieces(
        "ball", around(0.5, look.count), shapes.disc(0.13), 0.13, metal(look.trim)
    )


def _pulley(look: Look) -> Built:
    groove = Element("hub", shapes.polygon(6, 0.18), 0, 0, 0.22, metal(look.trim))
    windows = pieces("slot", around(0.44, look.count), shapes.polygon(4, 0.12), 0.18, SUNK, "sunk")
    return body(shapes.disc(0.72), 0.72, metal(look.body)), (*windows, groove)


def _plate(look: Look) -> Built:
    screws = pieces("screw", grid(0.54, 0.7, look.count), shapes.disc(0.12), 0.12, metal(look.trim))
    return body(shapes.box(0.7, 0.7, 0.06), 1.0, metal(look.body)), screws


def _tile(look: Look) -> Built:
    stripes = pieces(
        "stripe", [(x, 0) for x, _ in along(0.6, look.count)], shapes.box(0.05, 0.62, 0.02), 0.64, ink(look.trim), "print"
    )
    ground = Material(COLOURS[look.body], grain=0.09, coarse=24, bevel=0.04)
    return body(shapes.box(0.74, 0.74, 0.02), 1.05, ground), stripes


def _pill_pack(look: Look) -> Built:
    pills = pieces("pill", grid(0.62, 0.52, look.count), shapes.box(0.11, 0.17, 0.11), 0.2, plastic(look.trim))
    return body(shapes.box(0.78, 0.58, 0.1), 0.98, card(look.body)), pills


def _pin_tray(look: Look) -> Built:
    pins = pieces("pin", along(0.62, look.count), shapes.box(0.06, 0.4, 0.05), 0.42, metal(look.trim))
    well = Element("well", shapes.box(0.68, 0.5, 0.05), 0, 0, 0.85, Material((0.1, 0.1, 0.11), gloss=-0.5))
    return body(shapes.box(0.8, 0.62, 0.06), 1.02, plastic(look.body)), (well, *pins)


def _connector_block(look: Look) -> Built:
    sockets = pieces("socket", along(0.66, look.count, 0.1), shapes.box(0.09, 0.13, 0.02), 0.17, SUNK, "sunk")
    lever = Element("lever", shapes.box(0.6, 0.07, 0.03), 0, -0.25, 0.62, plastic(look.trim))
    return body(shapes.box(0.78, 0.42, 0.05), 0.9, plastic(look.body)), (*sockets, lever)


def _button_card(look: Look) -> Built:
    button = shapes.minus(shapes.disc(0.17), shapes.disc(0.04))
    buttons = pieces("button", grid(0.56, 0.66, look.count), button, 0.17, plastic(look.trim))
    return body(shapes.box(0.64, 0.76, 0.03), 1.0, card(look.body)), buttons


def _fuse_block(look: Look) -> Built:
    fuses = pieces("fuse", along(0.64, look.count), shapes.box(0.08, 0.26, 0.08), 0.28, plastic(look.trim))
    return body(shapes.box(0.78, 0.46, 0.04), 0.92, plastic(look.body)), fuses


def _candle_box(look: Look) -> Built:
    candles = pieces("candle", grid(0.58, 0.6, look.count), shapes.disc(0.18), 0.18, plastic(look.trim))
    return body(shapes.box(0.76, 0.72, 0.04), 1.05, card(look.body)), candles


def _board(look: Look, fitted: tuple[Element, ...]) -> Built:
    traces = tuple(
        Element("trace", shapes.segment(-0.66, 0, 0.66, 0, 0.012), 0, y, 0.7, ink("gold"), depth="print")
        for y in (-0.42, 0.42)
    )
    pads = pieces("pad", along(0.66, 9, 0.54), shapes.box(0.03, 0.04, 0.01), 0.05, metal("gold"))
    return body(shapes.box(0.8, 0.64, 0.04), 1.04, plastic(look.body)), (*traces, *pads, *fitted)


def _sensor_board(look: Look) -> Built:
    eye = Element("sensor", shapes.disc(0.22), 0, 0.14, 0.22, metal(look.trim))
    chips = pieces("chip", along(0.66, look.count, -0.36), shapes.box(0.09, 0.1, 0.02), 0.14, plastic("black"))
    return _board(look, (eye, *chips))


def _led_board(look: Look) -> Built:
    lamps = pieces("lamp", along(0.66, look.count), shapes.disc(0.11), 0.11, plastic(look.trim))
    return _board(look, lamps)


def _memory_board(look: Look) -> Built:
    chips = pieces("chip", along(0.7, look.count), shapes.box(0.1, 0.26, 0.02), 0.28, plastic(look.trim))
    return _board(look, chips)


def _relay_board(look: Look) -> Built:
    relays = pieces("relay", along(0.62, look.count, -0.08), shapes.box(0.15, 0.2, 0.02), 0.26, plastic(look.trim))
    return _board(look, relays)


def _capacitor_board(look: Look) -> Built:
    cans = pieces("capacitor", grid(0.56, 0.46, look.count), shapes.disc(0.15), 0.15, metal(look.trim))
    return _board(look, cans)


def _switch_board(look: Look) -> Built:
    switches = pieces("switch", along(0.64, look.count), shapes.cross(0.14, 0.05), 0.16, plastic(look.trim))
    return _board(look, switches)


def _labelled(look: Look, y: float, width: float, height: float) -> tuple[Element, ...]:
    paper = "black" if look.trim == "white" else "white"
    label = Element("label", shapes.box(width, height, 0.02), 0, y, width + height, ink(paper), depth="print")
    gap = 2 * height / (look.count + 1)
    stripes = pieces(
        "stripe",
        [(0, y - height + gap * (k + 1)) for k in range(look.count)],
        shapes.box(width * 0.82, min(0.04, gap * 0.3), 0.01),
        width,
        ink(look.trim),
        "print",
    )
    return (label, *stripes)


def _bottle(look: Look) -> Built:
    cap = Element("cap", shapes.box(0.17, 0.1, 0.03), 0, -0.82, 0.2, plastic(look.trim))
    return body(shapes.bottle(0.36, 0.76), 1.05, plastic(look.body), y=0.06), (
        *_labelled(look, 0.36, 0.33, 0.26),
        cap,
    )


def _can(look: Look) -> Built:
    lid = Element("lid", shapes.box(0.4, 0.07, 0.05), 0, -0.72, 0.42, metal("silver"))
    return body(shapes.box(0.46, 0.76, 0.08), 0.9, metal(look.body)), (*_labelled(look, 0.08, 0.42, 0.34), lid)


def _carton(look: Look) -> Built:
    flap = Element("flap", shapes.box(0.6, 0.1, 0.02), 0, -0.66, 0.62, card(look.trim))
    return body(shapes.box(0.62, 0.78, 0.03), 1.0, card(look.body)), (*_labelled(look, 0.16, 0.46, 0.32), flap)


def _pouch(look: Look) -> Built:
    seal = Element("seal", shapes.box(0.52, 0.05, 0.01), 0, -0.68, 0.54, card(look.trim))
    return body(shapes.pouch(0.62, 0.8), 1.05, card(look.body)), (*_labelled(look, 0.12, 0.4, 0.3), seal)


def _jar(look: Look) -> Built:
    lid = Element("lid", shapes.box(0.5, 0.13, 0.05), 0, -0.62, 0.54, metal(look.trim))
    return body(shapes.box(0.58, 0.66, 0.2), 0.9, plastic(look.body), y=0.1), (*_labelled(look, 0.2, 0.48, 0.3), lid)


def _tube(look: Look) -> Built:
    cap = Element("cap", shapes.box(0.2, 0.14, 0.03), 0, 0.78, 0.26, plastic(look.trim))
    return body(shapes.box(0.32, 0.74, 0.06), 0.85, plastic(look.body), y=-0.08), (
        *_labelled(look, -0.1, 0.28, 0.36),
        cap,
    )


def _tin(look: Look) -> Built:
    key = Element("key", shapes.disc(0.12), 0.5, -0.34, 0.12, metal(look.trim))
    return body(shapes.box(0.8, 0.56, 0.22), 0.98, metal(look.body)), (*_labelled(look, 0.12, 0.56, 0.26), key)


PARTS, ASSEMBLIES, GOODS, PCBS = "Parts", "Assemblies", "Goods", "Boards"
_ROUND, _SQUARE, _WIDE, _TALL = "Round.", "Square.", "Wide rectangle.", "Tall rectangle."

FAMILIES: dict[str, Family] = {
    family.noun: family
    for family in (
        Family("gear", PARTS, "Toothed wheel.", "hole", (3, 4, 5, 6), METALS, PAINTS, _gear,
               "A {body} toothed wheel with {count} holes about a {trim} hub."),
        Family("washer", PARTS, "Ring.", "rivet", (3, 4, 5, 6), METALS, TRIMS, _washer,
               "A flat {body} ring with {count} {trim} rivets."),
        Family("flange", PARTS, _ROUND, "hole", (4, 5, 6, 8), METALS, TRIMS, _flange,
               "A round {body} disc with {count} holes about a {trim} collar."),
        Family("nut", PARTS, "Hexagon.", "mark", (1, 2, 3), METALS, PAINTS, _hex_nut,
               "A {body} hexagon with an opening and {count} {trim} marks."),
        Family("bracket", PARTS, "Angle.", "hole", (2, 3, 4), METALS, TRIMS, _bracket,
               "A {body} angle with {count} holes and a {trim} pin."),
        Family("bearing", PARTS, "Ring.", "ball", (6, 7, 8), METALS, TRIMS, _bearing,
               "A {body} ring with {count} {trim} balls."),
        Family("pulley", PARTS, _ROUND, "slot", (3, 4, 5), METALS, TRIMS, _pulley,
               "A round {body} disc with {count} slots about a {trim} hub."),
        Family("plate", PARTS, _SQUARE, "screw", (2, 3, 4, 6), METALS, TRIMS, _plate,
               "A square {body} plate with {count} {trim} screws."),
        Family("tile", PARTS, _SQUARE, "stripe", (2, 3, 4), PAINTS, PAINTS, _tile,
               "A square {body} tile with {count} {trim} stripes."),
        Family("pill pack", ASSEMBLIES, _WIDE, "pill", (4, 6, 8), ("silver", "white", "blue"), PAINTS, _pill_pack,
               "A wide {body} pack with {count} {trim} pills."),
        Family("pin tray", ASSEMBLIES, _WIDE, "pin", (3, 4, 5, 6), PAINTS, METALS, _pin_tray,
               "A wide {body} tray with {count} {trim} pins in a dark well."),
        Family("connector", ASSEMBLIES, _WIDE, "socket", (3, 4, 5, 6), PAINTS, PAINTS, _connector_block,
               "A wide {body} block with {count} sockets under a {trim} lever."),
        Family("button card", ASSEMBLIES, _TALL, "button", (3, 4, 6), PAINTS, PAINTS, _button_card,
               "A tall {body} card with {count} {trim} buttons."),
        Family("fuse block", ASSEMBLIES, _WIDE, "fuse", (3, 4, 5, 6), PAINTS, PAINTS, _fuse_block,
               "A wide {body} block with {count} {trim} fuses."),
        Family("candle box", ASSEMBLIES, _SQUARE, "candle", (2, 3, 4, 6), PAINTS, PAINTS, _candle_box,
               "A square {body} box with {count} {trim} candles."),
        Family("sensor board", PCBS, _WIDE, "chip", (2, 3, 4, 5), BOARDS, METALS, _sensor_board,
               "A wide {body} board with {count} chips over a {trim} sensor."),
        Family("lamp board", PCBS, _WIDE, "lamp", (3, 4, 5, 6), BOARDS, PAINTS, _led_board,
               "A wide {body} board with {count} {trim} lamps."),
        Family("memory board", PCBS, _WIDE, "chip", (3, 4, 5, 6), BOARDS, ("black", "white", "silver"), _memory_board,
               "A wide {body} board with {count} tall {trim} chips."),
        Family("relay board", PCBS, _WIDE, "relay", (2, 3, 4), BOARDS, PAINTS, _relay_board,
               "A wide {body} board with {count} {trim} relays."),
        Family("capacitor board", PCBS, _WIDE, "capacitor", (2, 3, 4, 6), BOARDS, TRIMS, _capacitor_board,
               "A wide {body} board with {count} round {trim} capacitors."),
        Family("switch board", PCBS, _WIDE, "switch", (2, 3, 4), BOARDS, PAINTS, _switch_board,
               "A wide {body} board with {count} {trim} switches."),
        Family("bottle", GOODS, "Bottle with a neck.", "stripe", (1, 2, 3), PAINTS, PAINTS, _bottle,
               "A {body} bottle with a {trim} cap and {count} stripes on its label."),
        Family("can", GOODS, _TALL, "stripe", (1, 2, 3, 4), (*METALS, "red", "blue"), PAINTS, _can,
               "A tall {body} can with a silver lid and {count} {trim} stripes on its label."),
        Family("carton", GOODS, _TALL, "stripe", (1, 2, 3, 4), PAINTS, PAINTS, _carton,
               "A tall {body} carton with a {trim} flap and {count} stripes on its label."),
        Family("pouch", GOODS, "Rounded bag.", "stripe", (1, 2, 3), PAINTS, PAINTS, _pouch,
               "A {body} bag with a {trim} seal and {count} stripes on its label."),
        Family("jar", GOODS, "Rounded square.", "stripe", (1, 2, 3), PAINTS, (*METALS, "red", "blue"), _jar,
               "A rounded {body} jar with a {trim} lid and {count} stripes on its label."),
        Family("tube", GOODS, _TALL, "stripe", (1, 2, 3, 4), PAINTS, PAINTS, _tube,
               "A tall {body} tube with a {trim} cap and {count} stripes on its label."),
        Family("tin", GOODS, _WIDE, "stripe", (1, 2, 3), METALS, PAINTS, _tin,
               "A wide {body} tin with a {trim} key and {count} stripes on its label."),
    )
}  # fmt: skip

#: The benchmark's products: (family, look).
BENCHMARK: dict[str, Look] = {
    "gear": Look("gold", "blue", 5, "grey"),
    "washer": Look("silver", "copper", 4, "dark"),
    "flange": Look("copper", "silver", 6, "beige"),
    "nut": Look("silver", "red", 2, "teal"),
    "pill pack": Look("silver", "yellow", 8, "dark"),
    "pin tray": Look("blue", "gold", 5, "grey"),
    "connector": Look("white", "purple", 4, "teal"),
    "sensor board": Look("green", "silver", 3, "beige"),
    "lamp board": Look("black", "yellow", 5, "grey"),
    "memory board": Look("blue", "black", 4, "dark"),
    "bottle": Look("green", "white", 2, "beige"),
    "can": Look("red", "black", 3, "grey"),
    "carton": Look("yellow", "purple", 3, "teal"),
    "pouch": Look("purple", "green", 2, "dark"),
}
#: The training world's families; none is in the benchmark.
TRAINING: tuple[str, ...] = tuple(noun for noun in FAMILIES if noun not in BENCHMARK)


def with_elements(design: Design, elements: tuple[Element, ...]) -> Design:
    """The same product with other pieces."""
    return replace(design, elements=elements)
