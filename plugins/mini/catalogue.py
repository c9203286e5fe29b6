"""What the mini world is made of: 28 product families, and the benchmark's products among them.

A family turns a look (colours and a count) into a design; a *product* is a family with one fixed look. The
benchmark's products and the training world's come from different families, so a defect on a benchmark product
is new to every model trained on the training world.
"""

from __future__ import annotations

from plugins.mini import families
from plugins.mini.pieces import Family, Look

METALS = ("silver", "gold", "copper")
TRIMS = (*METALS, "black")
PAINTS = ("white", "red", "green", "blue", "yellow", "purple", "black")
BOARDS = ("green", "blue", "red", "black", "purple")
LIDS = (*METALS, "red", "blue")
PACKS = ("silver", "white", "blue")
CHIPS = ("black", "white", "silver")

PARTS, ASSEMBLIES, GOODS, PCBS = "Parts", "Assemblies", "Goods", "Boards"
_ROUND, _SQUARE, _WIDE, _TALL = "Round.", "Square.", "Wide rectangle.", "Tall rectangle."

FAMILIES: dict[str, Family] = {
    family.noun: family
    for family in (
        Family("gear", PARTS, "Toothed wheel.", "hole", (3, 4, 5, 6), METALS, PAINTS, families.gear,
               "A {body} toothed wheel with {count} holes about a {trim} hub."),
        Family("washer", PARTS, "Ring.", "rivet", (3, 4, 5, 6), METALS, TRIMS, families.washer,
               "A flat {body} ring with {count} {trim} rivets."),
        Family("flange", PARTS, _ROUND, "hole", (4, 5, 6, 8), METALS, TRIMS, families.flange,
               "A round {body} disc with {count} holes about a {trim} collar."),
        Family("nut", PARTS, "Hexagon.", "mark", (1, 2, 3), METALS, PAINTS, families.hex_nut,
               "A {body} hexagon with an opening and {count} {trim} marks."),
        Family("bracket", PARTS, "Angle.", "hole", (2, 3, 4), METALS, TRIMS, families.bracket,
               "A {body} angle with {count} holes and a {trim} pin."),
        Family("bearing", PARTS, "Ring.", "ball", (6, 7, 8), METALS, TRIMS, families.bearing,
               "A {body} ring with {count} {trim} balls."),
        Family("pulley", PARTS, _ROUND, "slot", (3, 4, 5), METALS, TRIMS, families.pulley,
               "A round {body} disc with {count} slots about a {trim} hub."),
        Family("plate", PARTS, _SQUARE, "screw", (2, 3, 4, 6), METALS, TRIMS, families.plate,
               "A square {body} plate with {count} {trim} screws."),
        Family("tile", PARTS, _SQUARE, "stripe", (2, 3, 4), PAINTS, PAINTS, families.tile,
               "A square {body} tile with {count} {trim} stripes."),
        Family("pill pack", ASSEMBLIES, _WIDE, "pill", (4, 6, 8), PACKS, PAINTS, families.pill_pack,
               "A wide {body} pack with {count} {trim} pills."),
        Family("pin tray", ASSEMBLIES, _WIDE, "pin", (3, 4, 5, 6), PAINTS, METALS, families.pin_tray,
               "A wide {body} tray with {count} {trim} pins in a dark well."),
        Family("connector", ASSEMBLIES, _WIDE, "socket", (3, 4, 5, 6), PAINTS, PAINTS, families.connector,
               "A wide {body} block with {count} sockets under a {trim} lever."),
        Family("button card", ASSEMBLIES, _TALL, "button", (3, 4, 6), PAINTS, PAINTS, families.button_card,
               "A tall {body} card with {count} {trim} buttons."),
        Family("fuse block", ASSEMBLIES, _WIDE, "fuse", (3, 4, 5, 6), PAINTS, PAINTS, families.fuse_block,
               "A wide {body} block with {count} {trim} fuses."),
        Family("candle box", ASSEMBLIES, _SQUARE, "candle", (2, 3, 4, 6), PAINTS, PAINTS, families.candle_box,
               "A square {body} box with {count} {trim} candles."),
        Family("sensor board", PCBS, _WIDE, "chip", (2, 3, 4, 5), BOARDS, METALS, families.sensor_board,
               "A wide {body} board with {count} chips over a {trim} sensor."),
        Family("lamp board", PCBS, _WIDE, "lamp", (3, 4, 5, 6), BOARDS, PAINTS, families.led_board,
               "A wide {body} board with {count} {trim} lamps."),
        Family("memory board", PCBS, _WIDE, "chip", (3, 4, 5, 6), BOARDS, CHIPS, families.memory_board,
               "A wide {body} board with {count} tall {trim} chips."),
        Family("relay board", PCBS, _WIDE, "relay", (2, 3, 4), BOARDS, PAINTS, families.relay_board,
               "A wide {body} board with {count} {trim} relays."),
        Family("capacitor board", PCBS, _WIDE, "capacitor", (2, 3, 4, 6), BOARDS, TRIMS, families.capacitors,
               "A wide {body} board with {count} round {trim} capacitors."),
        Family("switch board", PCBS, _WIDE, "switch", (2, 3, 4), BOARDS, PAINTS, families.switch_board,
               "A wide {body} board with {count} {trim} switches."),
        Family("bottle", GOODS, "Bottle with a neck.", "stripe", (1, 2, 3), PAINTS, PAINTS, families.bottle,
               "A {body} bottle with a {trim} cap and {count} stripes on its label."),
        Family("can", GOODS, _TALL, "stripe", (1, 2, 3, 4), (*METALS, "red", "blue"), PAINTS, families.can,
               "A tall {body} can with a silver lid and {count} {trim} stripes on its label."),
        Family("carton", GOODS, _TALL, "stripe", (1, 2, 3, 4), PAINTS, PAINTS, families.carton,
               "A tall {body} carton with a {trim} flap and {count} stripes on its label."),
        Family("pouch", GOODS, "Rounded bag.", "stripe", (1, 2, 3), PAINTS, PAINTS, families.pouch,
               "A {body} bag with a {trim} seal and {count} stripes on its label."),
        Family("jar", GOODS, "Rounded square.", "stripe", (1, 2, 3), PAINTS, LIDS, families.jar,
               "A rounded {body} jar with a {trim} lid and {count} stripes on its label."),
        Family("tube", GOODS, _TALL, "stripe", (1, 2, 3, 4), PAINTS, PAINTS, families.tube,
               "A tall {body} tube with a {trim} cap and {count} stripes on its label."),
        Family("tin", GOODS, _WIDE, "stripe", (1, 2, 3), METALS, PAINTS, families.tin,
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
