"""Training of a generator against a critic, and drawing with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dbtbench.adversarial.augmentation import Changes
from dbtbench.adversarial.losses import (
    MUTATIONS,
    critic_loss,
    gradient_penalty,
    measure_fitness,
    penalty_weight,
    relativistic_loss,
)
from dbtbench.adversarial.networks import Critic, GeneratorNetwork, clip_roots
from dbtbench.closed_form.start import LinearStart
from dbtbench.networks.conditioning import Conditioning
from dbtbench.runtime import distributed
from dbtbench.training.learned import LayoutNoise, LeftBreasts
from dbtbench.training.loop import Loss, Network, Preview, StepContext, fit_networks

if TYPE_CHECKING:
    from dbtbench.adversarial.recipe import AdversarialRecipe

BETAS = (0.0, 0.99)


def train_generator(
    recipe: AdversarialRecipe, data: LeftBreasts, folder: Path, preview: Preview
) -> nn.Module:
    """Train critic and generator, continue or load them (see `dbtbench.training.loop.fit_networks`).

    Neither is compiled: the critic's gradient is differentiated again, which compiled networks cannot do.

    Returns:
        The averaged generator.
    """
    torch.manual_seed(recipe.seed)
    start = LinearStart(data.split.grid, recipe.components, len(data))
    generator = GeneratorNetwork(start, recipe.width, recipe.blocks)
    critic = Critic(data.split.grid, recipe.width, recipe.blocks)
    game = Game(recipe, data, start)
    mutations: Mapping[str, Loss] = {name: partial(game.mutate, name) for name in MUTATIONS}
    loss = mutations if recipe.loss == "evolve" else game.lose_generator
    networks = {
        "critic": Network(critic, game.lose_critic, betas=BETAS, ema=0),
        "generator": Network(generator, loss, fitness=game.measure_fitness, betas=BETAS),
    }

    def draw_preview(networks: Mapping[str, nn.Module], path: Path) -> None:
        preview(networks["generator"], path)

    trained = fit_networks(
        networks,
        recipe,
        folder,
        seed=recipe.seed,
        title="training generator and critic",
        preview=draw_preview,
    )
    return trained["generator"]


class Game:
    """The losses of both networks; reads the data, and fits the generator's start, at the first of them."""

    def __init__(self, recipe: AdversarialRecipe, data: LeftBreasts, start: LinearStart) -> None:
        self.recipe, self.data, self.start = recipe, data, start

    @cached_property
    def roots(self) -> Tensor:
        """Roots of the training volumes' intensities (n, 1, D, H, W)."""
        self.start.fit(self.data.split)
        return self.data.volumes.sqrt()

    @cached_property
    def bumps(self) -> Tensor:
        """The start's lesion bumps of all training volumes, as the roots."""
        return self.start.draw_bumps(self.data.conditioning).to(self.data.device)

    def lose_critic(self, critic: nn.Module, context: StepContext) -> Tensor:
        """Compute the critic's loss, with both gradient penalties."""
        with _full_precision():
            batch = Batch(self, context)
            with torch.no_grad():
                fake = batch.draw(context.networks["generator"])
            real = batch.real.requires_grad_()
            scores, fake_scores = batch.score(critic, real), batch.score(critic, fake.requires_grad_())
            penalties = gradient_penalty(scores, real) + gradient_penalty(fake_scores, fake)
            weight = penalty_weight(self.recipe.penalty, context.step, self.recipe.steps)
            evolves = self.recipe.loss == "evolve"
            loss = critic_loss if evolves else relativistic_loss
            return loss(scores, fake_scores) + weight / 2 * penalties

    def lose_generator(self, generator: nn.Module, context: StepContext) -> Tensor:
        """Compute the generator's relativistic pairing loss."""
        batch, critic = Batch(self, context), context.networks["critic"]
        return relativistic_loss(batch.score(critic, batch.draw(generator)), batch.score(critic, batch.real))

    def mutate(self, name: str, generator: nn.Module, context: StepContext) -> Tensor:
        """Compute the loss of a mutation."""
        batch = Batch(self, context)
        return MUTATIONS[name](batch.score(context.networks["critic"], batch.draw(generator)))

    def measure_fitness(self, generator: nn.Module, context: StepContext) -> Tensor:
        """Measure the generator's fitness on `context.part` of a batch."""
        with _full_precision():
            batch, critic = Batch(self, context), context.networks["critic"]
            with torch.no_grad():
                fake = batch.draw(generator)
            real, drawn = batch.score(critic, batch.real), batch.score(critic, fake)
            return measure_fitness(real, drawn, critic.parameters(), self.recipe.diversity_weight)


class Batch:
    """`context.part` of a batch: real volumes, their conditioning, and the random numbers of one draw.

    Attributes:
        real: roots (N, 1, D, H, W).
        conditioning: of the real volumes, with which others are drawn.
    """

    def __init__(self, game: Game, context: StepContext) -> None:
        size, generator, part = game.recipe.batch, context.generator, context.part
        device, roots = distributed.device(), game.roots
        rows = game.data.draw_rows(context, size)
        self.real = roots[rows].to(device)
        self.conditioning = game.data.conditioning[rows].to(device)
        self.bumps = game.bumps[rows].to(device)
        code = len(game.start.components)
        self.code = torch.randn(size, code, generator=generator, device=device)[part]
        self.noise = torch.randn(size, *roots.shape[1:], generator=generator, device=device)[part]
        plane = roots.shape[-2], roots.shape[-1]
        changes = Changes.draw(size, plane, generator).part(part)
        self.changes = changes if game.recipe.augment else None

    def draw(self, generator: nn.Module) -> Tensor:
        """Draw roots with the generator, clipped: (N, 1, D, H, W)."""
        given = self.conditioning
        roots = generator(self.code, self.noise, given.label, given.projection, given.lesion_mask, self.bumps)
        return clip_roots(roots.float())

    def score(self, critic: nn.Module, roots: Tensor) -> Tensor:
        """Score volumes, augmented where the recipe says so: (N,)."""
        given, mask = self.conditioning, self.conditioning.lesion_mask
        if self.changes:
            roots, mask = self.changes.apply(roots, mask)
        scores: Tensor = critic(roots, given.label, given.projection, mask)
        return scores.float()


def draw_volumes(model: nn.Module, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
    """Draw volumes of left breasts: (N, 1, D, H, W) in [0, 1]."""
    assert isinstance(model, GeneratorNetwork)
    code, texture = noise(len(model.start.components)), noise()
    bumps = model.start.draw_bumps(conditioning)
    with distributed.autocast():
        roots = model(
            code, texture, conditioning.label, conditioning.projection, conditioning.lesion_mask, bumps
        )
    return model.start.to_intensities(roots.float())


def _full_precision() -> torch.autocast:
    """Turn mixed precision off."""
    return torch.autocast(distributed.device().type, enabled=False)
