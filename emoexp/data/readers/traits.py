"""Parameters of drawn faces besides the emotion: the traits of a person, and the pose and light of a picture."""

import numpy as np

TRAITS: dict[str, tuple[float, float]] = {  # of a person; lengths in units of about half a head
    "head_width": (0.62, 0.82), "head_height": (0.90, 1.04), "jaw_narrow": (0.05, 0.40), "skin": (0.35, 0.95),
    "eye_x": (0.27, 0.35), "eye_y": (-0.24, -0.14), "eye_width": (0.12, 0.17),
    "eye_open": (0.045, 0.075), "eye_tilt": (-0.15, 0.10), "iris": (0.08, 0.40), "socket": (0.05, 0.45),
    "brow_y": (-0.47, -0.37), "brow_half": (0.15, 0.20), "brow_thick": (0.020, 0.055),
    "brow_arch": (0.00, 0.05), "brow_tilt": (-0.05, 0.06), "nose_y": (0.14, 0.24), "nose_width": (0.06, 0.11),
    "mouth_y": (0.46, 0.56), "mouth_width": (0.20, 0.29), "mouth_corner": (-0.04, 0.04),
    "lip_upper": (0.025, 0.060), "lip_lower": (0.035, 0.080), "lip_tone": (0.50, 0.80),
    "hair_tone": (0.03, 0.60), "hair_side": (0.00, 0.22), "hair_length": (0.00, 1.00),
    "hairline": (-0.85, -0.55), "hair_curve": (-0.30, 0.60), "parting": (-0.25, 0.25),
    "has_hair": (0.00, 1.00), "age": (0.00, 0.60),
    "beard": (0.00, 1.00), "glasses": (0.00, 1.00),
}  # fmt: skip
POSES: dict[str, tuple[float, float]] = {  # of a picture, at nuisance 1, symmetric about no change
    "roll": (-0.30, 0.30), "yaw": (-0.16, 0.16), "pitch": (-0.08, 0.08), "lean": (-0.08, 0.08),
    "shift_x": (-0.12, 0.12), "shift_y": (-0.12, 0.12), "enlarge": (-0.14, 0.14),
    "light_x": (-0.45, 0.45), "light_y": (-0.30, 0.30), "brightness": (-0.12, 0.12), "weaken": (-0.35, 0.35),
    "gaze": (-0.05, 0.05), "background_x": (-0.25, 0.25), "background_y": (-0.25, 0.25),
}  # fmt: skip
HIDING = ("hide_top", "hide_left", "hide_high", "hide_wide")


def people(number: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Traits of a number of people, float64 P each. Some are bald, some wear a beard or glasses."""
    trait_of = {name: low + (high - low) * random.random(number) for name, (low, high) in TRAITS.items()}
    trait_of["has_hair"] = (trait_of["has_hair"] > 0.08).astype(np.float64)
    trait_of["beard"] = np.where(trait_of["beard"] > 0.82, (trait_of["beard"] - 0.6) * 2, 0)
    trait_of["glasses"] = (trait_of["glasses"] > 0.88).astype(np.float64)
    trait_of["brow_tone"] = trait_of["hair_tone"] * 0.6
    trait_of["hair_length"] = np.where(trait_of["hair_length"] > 0.5, trait_of["hair_length"], 0)
    return trait_of


def pictures(size: int, nuisance: float, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Pose and light of a number of pictures, float64 N each.

    nuisance scales how much they differ from a passport photograph.
    """
    parameter_of = {name: nuisance * (low + (high - low) * random.random(size)) for name, (low, high) in POSES.items()}
    roll = parameter_of.pop("roll")
    parameter_of |= {"cos": np.cos(roll), "sin": np.sin(roll)}
    parameter_of["zoom"] = 1 + parameter_of.pop("enlarge")
    parameter_of["contrast"] = np.maximum(0.9 + parameter_of.pop("weaken"), 0.2)
    parameter_of["background"] = random.random(size)
    parameter_of["nose_side"] = np.where(parameter_of["light_x"] > 0, -1.0, 1.0)
    parameter_of["teeth"] = np.where(random.random(size) < 0.3, 0.6, 0.0)
    parameter_of["blink"] = np.where(random.random(size) < 0.04 * nuisance, 0.15, 1.0)
    return parameter_of


def damage(size: int, nuisance: float, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Damage of a number of pictures, float64 N each: a box in front of one face in seven, blur, and noise.

    The box's HIDING are shares of the side, blur is a share of a full 1-2-1 filter, noise a half-width.
    """
    parameter_of = {"hide": (random.random(size) < nuisance / 7).astype(np.float64)}
    parameter_of |= {name: random.random(size) for name in (*HIDING, "hide_tone", "blur", "noise")}
    parameter_of["hide_high"], parameter_of["hide_wide"] = (
        0.1 + 0.3 * parameter_of["hide_high"],
        0.1 + 0.3 * parameter_of["hide_wide"],
    )
    parameter_of["blur"], parameter_of["noise"] = (
        np.minimum(parameter_of["blur"] * nuisance, 1),
        parameter_of["noise"] * 0.06 * nuisance,
    )
    return parameter_of
