"""Gemma (1): Llama's names and order of norms. Gemma-2 and -3 put a norm behind o_proj and down_proj and are not this."""

from dataclasses import replace

from editing.families.llama import LLAMA

GEMMA = replace(LLAMA, label="gemma")
