"""Random numbers as a function of a seed, a purpose and keys, without a generator's state.

Every draw is a function of (seed, purpose, keys such as epoch, step, image). A run that was killed and resumed, or that
logs or evaluates more, therefore draws exactly the same numbers, and no generator has to be saved. Draws for each image
use a 32-bit integer hash whose operations are exact on every device.
"""

import zlib

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
Key = int | Tensor


def _mix(value: Key) -> Key:
    """Scramble integers in [0, 2^32) one to one: the `lowbias32` finaliser (Wellons, 2018), in 64-bit arithmetic.

    Only the low 32 bits of a product are used, so that an int64 overflow gives the same on CPU, CUDA and MPS.
    """
    value = value ^ (value >> 16)
    value = (value * 0x7FEB352D) & _MASK
    value = value ^ (value >> 15)
    value = (value * 0x846CA68B) & _MASK
    return value ^ (value >> 16)


def _fold(seed: int, purpose: str, keys: tuple[Key, ...]) -> Key:
    state: Key = int(_mix(seed & _MASK)) ^ int(_mix((seed >> 32) & _MASK) * 3 & _MASK)
    state = _mix(state ^ zlib.crc32(purpose.encode()))
    for key in keys:
        state = _mix((state + 0x1E3779B9 & _MASK) ^ (key & _MASK))
        state = _mix((state + 0x2545F491) & _MASK)
    return state


def fold(seed: int, purpose: str, *keys: int) -> int:
    """One integer in [0, 2^63) to seed a generator, from the run's seed, a purpose and integers like (epoch, step)."""
    high, low = _fold(seed, purpose, (*keys, 0)), _fold(seed, purpose, (*keys, 1))
    return ((int(high) & 0x7FFFFFFF) << 32) | int(low)


def uniform(seed: int, purpose: str, *keys: Key, draws: int) -> Tensor:
    """Numbers in [0, 1), one row of `draws` for each element of the broadcast keys, on the keys' device.

    Args:
        keys: integers or int64 tensors B of non-negative values below 2^32 (epoch, image, copy, position).
        draws: how many numbers each element gets.

    Returns:
        float32 B×draws with 24 random bits each: the same on every device.
    """
    state = _fold(seed, purpose, keys)
    base = state if isinstance(state, Tensor) else torch.tensor([state])
    column = torch.arange(draws, device=base.device, dtype=torch.int64)
    bits = _mix(_mix((base[:, None] + 0x1E3779B9 & _MASK) ^ column[None, :]))
    return (bits >> 8).to(torch.float32) * (1.0 / (1 << 24))  # type: ignore[union-attr]  # a tensor, as `base` is


def uniform_double(seed: int, purpose: str, *keys: Key) -> Tensor:
    """One float64 in [0, 1) for each element of the broadcast keys, with 53 random bits."""
    high, low = _fold(seed, purpose, (*keys, 0)), _fold(seed, purpose, (*keys, 1))
    assert isinstance(high, Tensor) and isinstance(low, Tensor), "at least one key is a tensor"
    return ((high >> 5).double() * (1 << 26) + (low >> 6).double()) * (1.0 / (1 << 53))


def permutation(seed: int, purpose: str, *keys: int, size: int) -> Tensor:
    """A random order of 0..size-1 (int64, CPU) that depends on nothing but its arguments."""
    return torch.argsort(uniform_double(seed, purpose, *keys, torch.arange(size)), stable=True)


def reseed(seed: int, purpose: str, *keys: int) -> None:
    """Set torch's global generators (all devices), for what draws from them: dropout and weight initialisation."""
    number = fold(seed, purpose, *keys)
    torch.default_generator.manual_seed(
        number
    )  # torch.manual_seed would also look for every kind of device, at each step
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(number)
