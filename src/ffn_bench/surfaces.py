"""Surfaces for plug-ins: what a surface of your own is made of, see `race.surfaces`."""

from ffn_bench.race.surfaces import SURFACES, Surface

__all__ = ["SURFACES", "Surface"]
