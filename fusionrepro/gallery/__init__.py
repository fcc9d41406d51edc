"""Fused pictures, made once, kept, and read by everything."""
