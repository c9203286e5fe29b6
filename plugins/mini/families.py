"""How each family of products is put together from its look."""

from __future__ import annotations

from plugins.mini import shapes
from plugins.mini.canvas import Material
from plugins.mini.pieces import (
    COLOURS,
    SUNK,
    Element,
    Look,
    along,
    around,
    body,
    card,
    grid,
    holes,
    ink,
    metal,
    pieces,
    plastic,
)

Built = tuple[Element, tuple[Element, ...]]


def gear(look: Look) -> Built:
    """Build a gear."""
    hub = Element("hub", shapes.disc(0.2), 0, 0, 0.2, plastic(look.trim))
    return body(shapes.gear(0.62, 12), 0.85, metal(look.body)), (
        *holes("hole", around(0.4, look.count), 0.11),
        hub,
    )


def washer(look: Look) -> Built:
    """Build a washer."""
    ring = shapes.minus(shapes.disc(0.72), shapes.disc(0.3))
    return body(ring, 0.72, metal(look.body)), pieces(
        "rivet", around(0.51, look.count), shapes.disc(0.11), 0.11, metal(look.trim)
    )


def flange(look: Look) -> Built:
    """Build a flange."""
    centre = Element("collar", shapes.disc(0.28), 0, 0, 0.28, metal(look.trim))
    return body(shapes.disc(0.74), 0.74, metal(look.body)), (
        *holes("hole", around(0.53, look.count), 0.1),
        centre,
    )


def hex_nut(look: Look) -> Built:
    """Build a hex nut."""
    nut = shapes.minus(shapes.polygon(6, 0.66), shapes.disc(0.3))
    return body(nut, 0.78, metal(look.body)), pieces(
        "mark", around(0.49, look.count), shapes.disc(0.08), 0.08, ink(look.trim), "print"
    )


def bracket(look: Look) -> Built:
    """Build a bracket."""
    angle = shapes.union(
        shapes.placed(shapes.box(0.72, 0.24, 0.05), 0, 0.45),
        shapes.placed(shapes.box(0.24, 0.68, 0.05), -0.48, 0),
    )
    pin = Element("pin", shapes.disc(0.12), -0.48, -0.42, 0.12, metal(look.trim))
    places = along(0.56, look.count, 0.45)
    return body(angle, 1.0, metal(look.body)), (*holes("hole", places, 0.1), pin)


def bearing(look: Look) -> Built:
    """Build a bearing."""
    ring = shapes.minus(shapes.disc(0.74), shapes.disc(0.26))
    return body(ring, 0.74, metal(look.body)), pieces(
        "ball", around(0.5, look.count), shapes.disc(0.13), 0.13, metal(look.trim)
    )


def pulley(look: Look) -> Built:
    """Build a pulley."""
    groove = Element("hub", shapes.polygon(6, 0.18), 0, 0, 0.22, metal(look.trim))
    windows = pieces("slot", around(0.44, look.count), shapes.polygon(4, 0.12), 0.18, SUNK, "sunk")
    return body(shapes.disc(0.72), 0.72, metal(look.body)), (*windows, groove)


def plate(look: Look) -> Built:
    """Build a plate."""
    screws = pieces("screw", grid(0.54, 0.7, look.count), shapes.disc(0.12), 0.12, metal(look.trim))
    return body(shapes.box(0.7, 0.7, 0.06), 1.0, metal(look.body)), screws


def tile(look: Look) -> Built:
    """Build a tile."""
    stripes = pieces(
        "stripe",
        [(x, 0) for x, _ in along(0.6, look.count)],
        shapes.box(0.05, 0.62, 0.02),
        0.64,
        ink(look.trim),
        "print",
    )
    ground = Material(COLOURS[look.body], grain=0.09, coarse=24, bevel=0.04)
    return body(shapes.box(0.74, 0.74, 0.02), 1.05, ground), stripes


def pill_pack(look: Look) -> Built:
    """Build a pill pack."""
    pills = pieces(
        "pill", grid(0.62, 0.52, look.count), shapes.box(0.11, 0.17, 0.11), 0.2, plastic(look.trim)
    )
    return body(shapes.box(0.78, 0.58, 0.1), 0.98, card(look.body)), pills


def pin_tray(look: Look) -> Built:
    """Build a pin tray."""
    pins = pieces("pin", along(0.62, look.count), shapes.box(0.06, 0.4, 0.05), 0.42, metal(look.trim))
    well = Element("well", shapes.box(0.68, 0.5, 0.05), 0, 0, 0.85, Material((0.1, 0.1, 0.11), gloss=-0.5))
    return body(shapes.box(0.8, 0.62, 0.06), 1.02, plastic(look.body)), (well, *pins)


def connector(look: Look) -> Built:
    """Build a connector block."""
    sockets = pieces("socket", along(0.66, look.count, 0.1), shapes.box(0.09, 0.13, 0.02), 0.17, SUNK, "sunk")
    lever = Element("lever", shapes.box(0.6, 0.07, 0.03), 0, -0.25, 0.62, plastic(look.trim))
    return body(shapes.box(0.78, 0.42, 0.05), 0.9, plastic(look.body)), (*sockets, lever)


def button_card(look: Look) -> Built:
    """Build a button card."""
    button = shapes.minus(shapes.disc(0.17), shapes.disc(0.04))
    buttons = pieces("button", grid(0.56, 0.66, look.count), button, 0.17, plastic(look.trim))
    return body(shapes.box(0.64, 0.76, 0.03), 1.0, card(look.body)), buttons


def fuse_block(look: Look) -> Built:
    """Build a fuse block."""
    fuses = pieces("fuse", along(0.64, look.count), shapes.box(0.08, 0.26, 0.08), 0.28, plastic(look.trim))
    return body(shapes.box(0.78, 0.46, 0.04), 0.92, plastic(look.body)), fuses


def candle_box(look: Look) -> Built:
    """Build a candle box."""
    candles = pieces("candle", grid(0.58, 0.6, look.count), shapes.disc(0.18), 0.18, plastic(look.trim))
    return body(shapes.box(0.76, 0.72, 0.04), 1.05, card(look.body)), candles


def _board(look: Look, fitted: tuple[Element, ...]) -> Built:
    traces = tuple(
        Element("trace", shapes.segment(-0.66, 0, 0.66, 0, 0.012), 0, y, 0.7, ink("gold"), depth="print")
        for y in (-0.42, 0.42)
    )
    pads = pieces("pad", along(0.66, 9, 0.54), shapes.box(0.03, 0.04, 0.01), 0.05, metal("gold"))
    return body(shapes.box(0.8, 0.64, 0.04), 1.04, plastic(look.body)), (*traces, *pads, *fitted)


def sensor_board(look: Look) -> Built:
    """Build a sensor board."""
    eye = Element("sensor", shapes.disc(0.22), 0, 0.14, 0.22, metal(look.trim))
    chips = pieces(
        "chip", along(0.66, look.count, -0.36), shapes.box(0.09, 0.1, 0.02), 0.14, plastic("black")
    )
    return _board(look, (eye, *chips))


def led_board(look: Look) -> Built:
    """Build a led board."""
    lamps = pieces("lamp", along(0.66, look.count), shapes.disc(0.11), 0.11, plastic(look.trim))
    return _board(look, lamps)


def memory_board(look: Look) -> Built:
    """Build a memory board."""
    chips = pieces("chip", along(0.7, look.count), shapes.box(0.1, 0.26, 0.02), 0.28, plastic(look.trim))
    return _board(look, chips)


def relay_board(look: Look) -> Built:
    """Build a relay board."""
    relays = pieces(
        "relay", along(0.62, look.count, -0.08), shapes.box(0.15, 0.2, 0.02), 0.26, plastic(look.trim)
    )
    return _board(look, relays)


def capacitors(look: Look) -> Built:
    """Build a capacitor board."""
    cans = pieces("capacitor", grid(0.56, 0.46, look.count), shapes.disc(0.15), 0.15, metal(look.trim))
    return _board(look, cans)


def switch_board(look: Look) -> Built:
    """Build a switch board."""
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


def bottle(look: Look) -> Built:
    """Build a bottle."""
    cap = Element("cap", shapes.box(0.17, 0.1, 0.03), 0, -0.82, 0.2, plastic(look.trim))
    return body(shapes.bottle(0.36, 0.76), 1.05, plastic(look.body), y=0.06), (
        *_labelled(look, 0.36, 0.33, 0.26),
        cap,
    )


def can(look: Look) -> Built:
    """Build a can."""
    lid = Element("lid", shapes.box(0.4, 0.07, 0.05), 0, -0.72, 0.42, metal("silver"))
    return body(shapes.box(0.46, 0.76, 0.08), 0.9, metal(look.body)), (
        *_labelled(look, 0.08, 0.42, 0.34),
        lid,
    )


def carton(look: Look) -> Built:
    """Build a carton."""
    flap = Element("flap", shapes.box(0.6, 0.1, 0.02), 0, -0.66, 0.62, card(look.trim))
    return body(shapes.box(0.62, 0.78, 0.03), 1.0, card(look.body)), (
        *_labelled(look, 0.16, 0.46, 0.32),
        flap,
    )


def pouch(look: Look) -> Built:
    """Build a pouch."""
    seal = Element("seal", shapes.box(0.52, 0.05, 0.01), 0, -0.68, 0.54, card(look.trim))
    return body(shapes.pouch(0.62, 0.8), 1.05, card(look.body)), (*_labelled(look, 0.12, 0.4, 0.3), seal)


def jar(look: Look) -> Built:
    """Build a jar."""
    lid = Element("lid", shapes.box(0.5, 0.13, 0.05), 0, -0.62, 0.54, metal(look.trim))
    return body(shapes.box(0.58, 0.66, 0.2), 0.9, plastic(look.body), y=0.1), (
        *_labelled(look, 0.2, 0.48, 0.3),
        lid,
    )


def tube(look: Look) -> Built:
    """Build a tube."""
    cap = Element("cap", shapes.box(0.2, 0.14, 0.03), 0, 0.78, 0.26, plastic(look.trim))
    return body(shapes.box(0.32, 0.74, 0.06), 0.85, plastic(look.body), y=-0.08), (
        *_labelled(look, -0.1, 0.28, 0.36),
        cap,
    )


def tin(look: Look) -> Built:
    """Build a tin."""
    key = Element("key", shapes.disc(0.12), 0.5, -0.34, 0.12, metal(look.trim))
    return body(shapes.box(0.8, 0.56, 0.22), 0.98, metal(look.body)), (
        *_labelled(look, 0.12, 0.56, 0.26),
        key,
    )
