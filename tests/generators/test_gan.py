"""Both adversarial generators keep the rules that every generator keeps."""

from __future__ import annotations

from dbtbench.testing.suites import GeneratorSuite


class TestGAN(GeneratorSuite):
    plugin = "gan"


class TestEvolutionaryGAN(GeneratorSuite):
    plugin = "evolutionary-gan"
