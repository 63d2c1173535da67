"""Pixels of drawn faces: soft-edged ellipses and parabolas, evaluated for a chunk of images at once.

All per-pixel work is float32 addition, multiplication, division, square root, minimum and maximum, which IEEE
754 defines to the last bit: a face looks the same on every machine.

Lengths are in units of about half a head: a face's own frame has its centre at 0, x to its left and right, y
down; eyes lie near y = -0.2, the mouth near y = 0.5, the chin near 1.
"""

from collections.abc import Mapping

import numpy as np

Number = np.ndarray  # float32 B×1×1, one number an image
Field = np.ndarray  # float32 B×S×S, one number a pixel

EXTENT = 1.02  # half the side of an image in the face's units, before zoom


def faces(p: Mapping[str, Number], size: int) -> Field:
    """Grey values in 0..1 of faces with these traits, poses and actions, without occlusion, blur and noise.

    p: float32 B×1×1 for every name in `traits.TRAITS` and `traits.POSES`, and "au1", "au2"... in 0..1.
    """
    x, y = _face_frame(p, size)
    pixel = np.float32(2 * EXTENT / size) / p["zoom"]
    canvas = p["background"] + p["background_x"] * x + p["background_y"] * y
    _hair_behind(canvas, x, y, p, pixel)
    inside, skin = _head(canvas, x, y, p, pixel)
    side = np.abs(x)
    _nose(canvas, x, side, y, p, pixel)
    _folds(canvas, side, y, p, pixel)
    _mouth(canvas, side, y, p, pixel)
    _beard(canvas, side, y, p, inside)
    _eyes(canvas, x, side, y, p, pixel, skin)
    _brows(canvas, side, y, p, pixel)
    _fringe(canvas, x, y, p, pixel, inside)
    _glasses(canvas, side, y, p, pixel)
    light = 1 + p["light_x"] * x + p["light_y"] * y
    return np.clip((canvas * light - 0.5) * p["contrast"] + 0.5 + p["brightness"], 0, 1, out=canvas)


def _face_frame(p: Mapping[str, Number], size: int) -> tuple[Field, Field]:
    """Where each pixel lies in its face's own frame: shifted, zoomed, rotated, and turned (yaw, pitch)."""
    grid = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1) * np.float32(EXTENT)
    column = (grid[None, None, :] - p["shift_x"]) / p["zoom"]
    row = (grid[None, :, None] - p["shift_y"]) / p["zoom"]
    x = column * p["cos"] + row * p["sin"]
    y = row * p["cos"] - column * p["sin"]
    x = x - p["yaw"] * (1 - x * x * np.float32(0.8))
    y = y - p["pitch"] * (1 - y * y * np.float32(0.8))
    return x + p["lean"] * y, y


def _cover(distance: Field, pixel: Number) -> Field:
    """Share of a pixel inside a shape whose edge lies `distance` away (positive inside)."""
    return np.clip(distance / pixel + np.float32(0.5), 0, 1)


def _paint(canvas: Field, cover: Field, tone: Field | Number | np.float32) -> None:
    canvas += cover * (tone - canvas)


def _ellipse(x: Field, y: Field, width: Number | float, height: Number | float) -> Field:
    """Approximate signed distance to an ellipse about 0, positive inside (exact on the axes)."""
    u, v = x / width, y / height
    return (1 - np.sqrt(u * u + v * v)) * np.minimum(width, height)


def _hair_behind(canvas: Field, x: Field, y: Field, p: Mapping[str, Number], pixel: Number) -> None:
    body = np.maximum(y - np.float32(0.25), 0)
    hair = _ellipse(
        x, y + np.float32(0.12) - body * p["hair_length"], p["head_width"] + p["hair_side"], p["head_height"]
    )
    _paint(canvas, _cover(hair, pixel) * p["has_hair"], p["hair_tone"])
    neck = np.minimum(p["head_width"] * np.float32(0.62) - np.abs(x), y - np.float32(0.55))
    _paint(canvas, _cover(neck, pixel), p["skin"] * np.float32(0.72))


def _head(canvas: Field, x: Field, y: Field, p: Mapping[str, Number], pixel: Number) -> tuple[Field, Field]:
    low = np.maximum(y, 0)
    drop = 1 + np.float32(0.10) * p["jaw"]
    width = p["head_width"] * (1 - p["jaw_narrow"] * low * low)
    distance = _ellipse(x, np.where(y > 0, y / drop, y), width, p["head_height"])
    inside = _cover(distance, pixel)
    skin = p["skin"] * (np.float32(0.72) + np.minimum(distance, np.float32(0.4)) * np.float32(0.7))
    _paint(canvas, inside, skin)
    cheek = _ellipse(np.abs(x) - np.float32(0.38), y - np.float32(0.2) + p["au6"] * np.float32(0.08), 0.24, 0.2)
    canvas += np.maximum(cheek, 0) * (np.float32(0.25) + p["au6"] * np.float32(0.5)) * inside
    return inside, skin


def _nose(canvas: Field, x: Field, side: Field, y: Field, p: Mapping[str, Number], pixel: Number) -> None:
    tip = p["nose_y"] - p["au9"] * np.float32(0.06)
    along = np.clip((y + np.float32(0.2)) / (tip + np.float32(0.2)), 0, 1)
    fade = along * np.clip((tip + np.float32(0.02) - y) / np.float32(0.06), 0, 1)
    flank = _cover(np.float32(0.035) - np.abs(x - p["nose_side"] * p["nose_width"] * (np.float32(0.4) + along)), pixel)
    _paint(canvas, flank * fade * np.float32(0.45), p["skin"] * np.float32(0.62))
    nostril = _ellipse(side - p["nose_width"], y - tip, 0.055, 0.035)
    _paint(canvas, _cover(nostril, pixel), p["skin"] * np.float32(0.3))
    bridge = np.clip(1 - side * np.float32(6), 0, 1) * np.clip(1 - np.abs(y + np.float32(0.12)) * np.float32(6), 0, 1)
    wave = np.abs((y * np.float32(14)) % 2 - 1)
    _paint(canvas, bridge * wave * p["au9"] * np.float32(1.5), p["skin"] * np.float32(0.35))


def _folds(canvas: Field, side: Field, y: Field, p: Mapping[str, Number], pixel: Number) -> None:
    """Lines of the skin: nose to mouth corner, between the brows, across the forehead, below the lip."""
    dark = p["skin"] * np.float32(0.45)
    depth = np.clip(
        p["au9"] + p["au10"] * np.float32(0.8) + p["au12"] * np.float32(0.8) + p["age"] * np.float32(0.5),
        0,
        1,
    )
    t = (y - np.float32(0.1)) / np.float32(0.34)
    path = np.float32(0.16) + t * (np.float32(0.16) + p["au12"] * np.float32(0.1)) - t * t * np.float32(0.03)
    span = np.clip(4 * t * (1 - t), 0, 1)
    _paint(canvas, _cover(np.float32(0.022) - np.abs(side - path), pixel) * span * depth * np.float32(0.75), dark)
    brow = np.clip(1 - np.abs(y + np.float32(0.38)) * np.float32(7), 0, 1)
    furrow = _cover(np.float32(0.018) - np.abs(side - np.float32(0.065)), pixel)
    _paint(canvas, furrow * brow * p["au4"], dark)
    raised = (p["au1"] + p["au2"]) * np.float32(0.35) + p["age"] * np.float32(0.3)
    forehead = np.clip(1 - np.abs(y + np.float32(0.66)) * np.float32(7), 0, 1)
    forehead = forehead * np.clip(1 - side * np.float32(2.2), 0, 1)
    _paint(canvas, forehead * np.abs((y * np.float32(11)) % 2 - 1) * raised, dark)
    chin = _ellipse(side, y - np.float32(0.82) - p["jaw"] * np.float32(0.1), 0.17, 0.07)
    _paint(canvas, np.clip(1 - np.abs(chin) * np.float32(30), 0, 1) * p["au17"] * np.float32(0.7), dark)


def _mouth(canvas: Field, side: Field, y: Field, p: Mapping[str, Number], pixel: Number) -> None:
    stretch = p["au12"] * np.float32(0.08) + p["au20"] * np.float32(0.1) - p["au23"] * np.float32(0.05)
    half = p["mouth_width"] + stretch - p["au27"] * np.float32(0.06)
    corner = (
        p["au15"] * np.float32(0.13) - p["au12"] * np.float32(0.17) + p["mouth_corner"] + p["au20"] * np.float32(0.03)
    )
    height = p["mouth_y"] - p["au17"] * np.float32(0.04) - p["au10"] * np.float32(0.03) + p["au12"] * np.float32(0.03)
    t = np.minimum(side / half, 1)
    t *= t
    open_up = p["au10"] * np.float32(0.05) + p["au25"] * np.float32(0.025)
    open_down = p["jaw"] * np.float32(0.24) + p["au25"] * np.float32(0.04) + p["au16"] * np.float32(0.06)
    open_down = open_down + p["au12"] * p["au25"] * np.float32(0.06)
    rest = 1 - t
    middle = height + corner * t
    top, bottom = middle - open_up * rest, middle + open_down * rest
    thin = 1 - np.float32(0.7) * p["au23"]
    upper = top - p["lip_upper"] * thin * rest
    lower = bottom + p["lip_lower"] * thin * rest * (1 + p["au17"] * np.float32(0.3))
    within = _cover(half - side, pixel)
    lips = np.minimum(_cover(y - upper, pixel), _cover(lower - y, pixel)) * within
    _paint(canvas, lips * np.float32(0.85), p["skin"] * p["lip_tone"])
    line = _cover(np.float32(0.016) - np.abs(y - middle), pixel) * within * np.clip(1.5 - open_down * 12, 0, 1)
    _paint(canvas, line, p["skin"] * np.float32(0.25))
    gap = np.minimum(_cover(y - top, pixel), _cover(bottom - y, pixel)) * within
    gap = gap * np.clip((open_up + open_down) * np.float32(25), 0, 1)
    _paint(canvas, gap, p["skin"] * np.float32(0.16))
    show = np.clip(p["au12"] + p["au10"] + p["au20"] * np.float32(0.8) + p["au16"] * np.float32(0.6) + p["teeth"], 0, 1)
    teeth = gap * _cover(top + np.minimum(np.float32(0.09), (bottom - top) * np.float32(0.7)) - y, pixel)
    _paint(canvas, teeth * show, np.float32(0.9))
    shadow = np.clip(1 - np.abs(y - lower - np.float32(0.06)) * np.float32(16), 0, 1) * rest
    _paint(canvas, shadow * np.float32(0.3), p["skin"] * np.float32(0.5))


def _beard(canvas: Field, side: Field, y: Field, p: Mapping[str, Number], inside: Field) -> None:
    above = np.clip((p["mouth_y"] - np.float32(0.1) - y) * np.float32(9) + 1, 0, 1)
    low = np.clip((y - np.float32(0.3)) * np.float32(5), 0, 1) * (
        1 - above * np.clip((np.float32(0.5) - side) * 4, 0, 1)
    )
    clear = np.clip(_ellipse(side, y - p["mouth_y"], 0.36, 0.17) * np.float32(18), 0, 1)
    _paint(canvas, low * (1 - clear) * inside * p["beard"], p["hair_tone"] * np.float32(0.9))


def _eyes(canvas: Field, x: Field, side: Field, y: Field, p: Mapping[str, Number], pixel: Number, skin: Field) -> None:
    across = side - p["eye_x"]
    t = np.minimum(across * across / (p["eye_width"] * p["eye_width"]), 1)
    tilt = across * p["eye_tilt"]
    squeeze = 1 - np.float32(0.5) * p["au7"] - np.float32(0.3) * p["au9"] - np.float32(0.2) * p["au4"]
    up = (p["eye_open"] * squeeze + p["au5"] * np.float32(0.075)) * p["blink"]
    down = p["eye_open"] * np.float32(0.75) * (1 - np.float32(0.55) * p["au7"] - np.float32(0.6) * p["au6"])
    down = down * p["blink"]
    rest = 1 - t
    upper, lower = p["eye_y"] - up * rest + tilt, p["eye_y"] + down * rest + tilt
    within = _cover(p["eye_width"] - np.abs(across), pixel)
    socket = np.clip(_ellipse(across, y - p["eye_y"] + np.float32(0.04), 0.23, 0.16) * np.float32(6), 0, 1)
    _paint(canvas, socket * p["socket"], skin * np.float32(0.6))
    ball = np.minimum(_cover(y - upper, pixel), _cover(lower - y, pixel)) * within
    _paint(canvas, ball, np.float32(0.88))
    gaze = np.where(x > 0, across, -across) - p["gaze"]
    level = y - p["eye_y"]
    _paint(canvas, ball * _cover(_ellipse(gaze, level, 0.075, 0.075), pixel), p["iris"])
    _paint(canvas, ball * _cover(_ellipse(gaze, level, 0.035, 0.035), pixel), np.float32(0.04))
    lash = _cover(np.float32(0.02) - np.abs(y - upper), pixel) * within
    _paint(canvas, lash * np.float32(0.9), p["skin"] * np.float32(0.2))
    lid = _cover(np.float32(0.012) - np.abs(y - lower), pixel) * within
    _paint(canvas, lid * (np.float32(0.3) + np.float32(0.4) * p["au6"]), p["skin"] * np.float32(0.35))
    crease = _cover(np.float32(0.015) - np.abs(y - lower - np.float32(0.07)), pixel) * within
    _paint(
        canvas,
        crease * np.clip(p["au6"] + p["age"] * np.float32(0.4), 0, 1) * np.float32(0.6),
        p["skin"] * np.float32(0.45),
    )


def _brows(canvas: Field, side: Field, y: Field, p: Mapping[str, Number], pixel: Number) -> None:
    inner = p["eye_x"] - p["brow_half"] - p["au4"] * np.float32(0.05)
    t = (side - inner) / (2 * p["brow_half"])
    u = np.clip(t, 0, 1)
    lower = p["au4"] * np.float32(0.07) + p["au9"] * np.float32(0.04)
    inward = p["au4"] * np.float32(0.06) - p["au1"] * np.float32(0.15)
    outward = -p["au2"] * np.float32(0.14)
    arch = p["brow_arch"] + p["au2"] * np.float32(0.04)
    path = p["brow_y"] + lower + inward * (1 - u) * (1 - u) + (outward + p["brow_tilt"]) * u - 4 * arch * u * (1 - u)
    thick = p["brow_thick"] * (1 - np.float32(0.55) * u)
    ends = _cover(np.minimum(t, 1 - t) * 2 * p["brow_half"], pixel)
    _paint(canvas, _cover(thick - np.abs(y - path), pixel) * ends * np.float32(0.9), p["brow_tone"])


def _fringe(canvas: Field, x: Field, y: Field, p: Mapping[str, Number], pixel: Number, inside: Field) -> None:
    line = p["hairline"] + p["hair_curve"] * x * x + p["parting"] * x
    _paint(canvas, _cover(line - y, pixel) * inside * p["has_hair"], p["hair_tone"])


def _glasses(canvas: Field, side: Field, y: Field, p: Mapping[str, Number], pixel: Number) -> None:
    if not p["glasses"].any():
        return
    rim = _ellipse(side - p["eye_x"], y - p["eye_y"] - np.float32(0.02), 0.23, 0.18)
    bridge = np.minimum(np.float32(0.02) - np.abs(y - p["eye_y"]), p["eye_x"] - np.float32(0.2) - side)
    frame = np.maximum(_cover(np.float32(0.02) - np.abs(rim), pixel), _cover(bridge, pixel))
    _paint(canvas, frame * p["glasses"], np.float32(0.12))
