"""Which muscles an emotion moves: the facial actions of drawn faces, after the Facial Action Coding System.

Prototypes follow Ekman, Friesen and Hager, "Facial Action Coding System: Investigator's Guide" (2002), table
10-2 (EMFACS), with one or two common variants an emotion. An action unit's intensity lies in 0..1.
"""

import numpy as np

ACTIONS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 25, 26, 27)

PROTOTYPES: dict[str, tuple[dict[int, float], ...]] = {
    "angry": (
        {4: 1.0, 5: 0.6, 7: 0.7, 17: 0.4, 23: 1.0},
        {4: 1.0, 5: 0.5, 7: 0.8, 10: 0.5, 23: 0.4, 25: 0.7, 26: 0.5},
    ),
    "disgust": (
        {4: 0.5, 7: 0.4, 9: 1.0, 10: 0.7, 15: 0.5, 17: 0.5},
        {4: 0.5, 7: 0.4, 9: 0.8, 10: 1.0, 16: 0.7, 25: 0.7, 26: 0.3},
    ),
    "fear": (
        {1: 1.0, 2: 0.6, 4: 0.7, 5: 0.9, 20: 1.0, 25: 0.5, 26: 0.4},
        {1: 1.0, 2: 0.7, 4: 0.5, 5: 1.0, 25: 0.8, 26: 0.8},
    ),
    "happy": (
        {6: 0.8, 12: 1.0, 25: 0.6, 26: 0.2},
        {6: 0.5, 12: 0.9},
    ),
    "sad": (
        {1: 0.9, 4: 0.6, 15: 1.0, 17: 0.6},
        {1: 0.8, 4: 0.7, 6: 0.4, 15: 0.8, 25: 0.4},
    ),
    "surprise": (
        {1: 1.0, 2: 1.0, 5: 0.8, 25: 0.8, 26: 1.0},
        {1: 1.0, 2: 1.0, 5: 0.7, 25: 1.0, 26: 0.6, 27: 0.9},
    ),
    "neutral": (
        {},
        {25: 0.5, 26: 0.2},
    ),
}
CLASS_NAMES = tuple(PROTOTYPES)


def draw(label: np.ndarray, lowest: float, highest: float, random: np.random.Generator) -> dict[int, np.ndarray]:
    """Intensities of every action unit for each image, float64 N.

    An image shows one variant of its emotion's prototype, at an overall intensity between `lowest` and
    `highest`. Each action is stronger or weaker by up to a third, and one in ten is missing. Weak actions that do not
    belong to the emotion are added, as on a real face.
    """
    size = len(label)
    pattern = np.zeros((len(CLASS_NAMES), 2, len(ACTIONS)))
    for emotion, variants in enumerate(PROTOTYPES.values()):
        for variant, actions in enumerate(variants):
            for action, strength in actions.items():
                pattern[emotion, variant, ACTIONS.index(action)] = strength
    chosen = pattern[label, (random.random(size) < 0.4).astype(np.int64)]
    overall = lowest + (highest - lowest) * random.random((size, 1))
    jitter = 1 + (random.random((size, len(ACTIONS))) * 2 - 1) / 3
    active = random.random((size, len(ACTIONS))) >= 0.1
    unrelated = 0.35 * random.random((size, len(ACTIONS))) * (random.random((size, len(ACTIONS))) < 0.12)
    intensity = np.clip(chosen * overall * jitter * active + unrelated, 0, 1)
    return {action: intensity[:, column] for column, action in enumerate(ACTIONS)}
