"""Seed-OSS: Llama's tensors; biases on q, k and v."""

from dataclasses import replace

from editing.families.llama import LLAMA

SEED_OSS = replace(LLAMA, label="seed_oss", model_types=("seed_oss",))
