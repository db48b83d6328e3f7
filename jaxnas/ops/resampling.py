"""Images at half and at twice the height and width."""

import jax


def downsample(x: jax.Array) -> jax.Array:
    """Average 2x2 pixels: `[B, H, W, C]` to `[B, H / 2, W / 2, C]`, `H`, `W` even."""
    batch, height, width, channels = x.shape
    pixels = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return pixels.mean((2, 4))


def upsample(x: jax.Array) -> jax.Array:
    """Repeat every pixel, 2x2: `[B, H, W, C]` to `[B, 2 * H, 2 * W, C]`."""
    return x.repeat(2, axis=1).repeat(2, axis=2)
