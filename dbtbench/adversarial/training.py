"""Training of a generator against a critic, and drawing with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dbtbench.adversarial.augmentation import Patches
from dbtbench.adversarial.losses import (
    MUTATIONS,
    NEAR,
    coarse_change,
    critic_loss,
    measure_fitness,
    penalty_weight,
    relativistic_loss,
    slope_penalty,
)
from dbtbench.adversarial.networks import Critic, Draft, GeneratorNetwork, clip_roots
from dbtbench.closed_form.start import LinearStart
from dbtbench.networks.conditioning import Conditioning
from dbtbench.runtime import distributed
from dbtbench.training.learned import LayoutNoise, LeftBreasts
from dbtbench.training.loop import Loss, Network, Preview, StepContext, fit_networks
from dbtbench.training.network import store_channels_last

if TYPE_CHECKING:
    from dbtbench.adversarial.recipe import AdversarialRecipe

BETAS = (0.0, 0.99)


def train_generator(
    recipe: AdversarialRecipe, data: LeftBreasts, folder: Path, preview: Preview
) -> nn.Module:
    """Train critic and generator, continue or load them (see `dbtbench.training.loop.fit_networks`).

    Returns:
        The averaged generator.
    """
    torch.manual_seed(recipe.seed)
    start = LinearStart(data.split.grid, recipe.components, len(data))
    generator = GeneratorNetwork(start, recipe.width, recipe.blocks)
    critic = Critic(recipe.width, recipe.blocks)
    for network in (generator, critic):
        store_channels_last(network)
    game = Game(recipe, data, start)
    mutations: Mapping[str, Loss] = {name: partial(game.mutate, name) for name in MUTATIONS}
    loss = mutations if recipe.loss == "evolve" else game.lose_generator
    networks = {
        "critic": Network(
            critic,
            game.lose_critic,
            lr=recipe.critic_lr,
            betas=BETAS,
            clip=math.inf,
            schedule="constant",
            ema=0,
        ),
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

    @cached_property
    def centres(self) -> Tensor:
        """Row and column of each training volume's first lesion (n, 2); NaN for those without."""
        none = torch.full((1, 6), torch.nan)
        first = torch.cat([boxes[:1] if len(boxes) else none for boxes in self.data.boxes])
        return ((first[:, 1:3] + first[:, 4:6]) / 2).floor()

    def lose_critic(self, critic: nn.Module, context: StepContext) -> Tensor:
        """Compute the critic's loss, with both slope penalties."""
        with _full_precision():
            batch = Batch(self, context)
            with torch.no_grad():
                fake = batch.draw(context.networks["generator"])
            scores, fake_scores = batch.score(critic, batch.real), batch.score(critic, fake)
            near, fake_near = (batch.score(critic, volumes + batch.nudge) for volumes in (batch.real, fake))
            penalties = slope_penalty(scores, near) + slope_penalty(fake_scores, fake_near)
            weight = penalty_weight(self.recipe.penalty, context.step, self.recipe.steps)
            evolves = self.recipe.loss == "evolve"
            loss = critic_loss if evolves else relativistic_loss
            return loss(scores, fake_scores) + weight / 2 * penalties

    def lose_generator(self, generator: nn.Module, context: StepContext) -> Tensor:
        """Compute the generator's relativistic pairing loss, with its distance from the draft."""
        batch, critic = Batch(self, context), context.networks["critic"]
        fake = batch.draw(generator)
        loss = relativistic_loss(batch.score(critic, fake), batch.score(critic, batch.real))
        return loss + batch.anchor(fake)

    def mutate(self, name: str, generator: nn.Module, context: StepContext) -> Tensor:
        """Compute the loss of a mutation."""
        batch = Batch(self, context)
        fake = batch.draw(generator)
        return MUTATIONS[name](batch.score(context.networks["critic"], fake)) + batch.anchor(fake)

    def measure_fitness(self, generator: nn.Module, context: StepContext) -> Tensor:
        """Measure the generator's fitness on `context.part` of a batch."""
        with _full_precision():
            batch, critic = Batch(self, context), context.networks["critic"]
            with torch.no_grad():
                fake = batch.draw(generator)
            real, drawn = batch.score(critic, batch.real), batch.score(critic, fake)
            return measure_fitness(real, drawn, critic.parameters(), self.recipe.diversity_weight)


class Batch:
    """`context.part` of a batch: patches of real volumes, their conditioning, and the drafts of others.

    Attributes:
        real: roots (N, 1, D, h, w).
        mask: lesion masks, as `real`.
        nudge: the noise over which the critic's slope is measured, as `real`.
    """

    def __init__(self, game: Game, context: StepContext) -> None:
        recipe, start, part = game.recipe, game.start, context.part
        size, random, device = recipe.batch, context.generator, distributed.device()
        rows = game.data.draw_rows(replace(context, part=slice(None)), size)
        depth, *plane = game.roots.shape[2:]
        patches = Patches.draw(game.centres[rows].to(device), (plane[0], plane[1]), recipe.patch, random)
        self.code = torch.randn(size, len(start.components), generator=random, device=device)[part]
        noise = torch.randn(size, 1, depth, *plane, generator=random, device=device)[part]
        nudge = torch.randn(size, 1, depth, *patches.size, generator=random, device=device)[part]
        self.recipe, self.nudge, self.patches = recipe, NEAR * nudge, patches.part(part)
        rows, cut = rows[part], self.patches.cut
        given = game.data.conditioning[rows].to(device)
        self.label, self.projection, self.mask = given.label, given.projection, cut(given.lesion_mask)
        self.real = cut(game.roots[rows].to(device))
        draft = Draft.draw(start, self.code, noise, given.projection, game.bumps[rows].to(device))
        self.draft = Draft(*map(cut, draft))

    def draw(self, generator: nn.Module) -> Tensor:
        """Draw roots with the generator, clipped, as `real`."""
        roots = generator(self.draft, self.code, self.label, self.projection, self.mask)
        return clip_roots(roots.float())

    def anchor(self, fake: Tensor) -> Tensor:
        """Compute the recipe's penalty of coarse changes to the drafts, which have the right brightness."""
        return self.recipe.anchor * coarse_change(fake, clip_roots(self.draft.smooth + self.draft.texture))

    def score(self, critic: nn.Module, roots: Tensor) -> Tensor:
        """Score patches, with another contrast where the recipe says so: (N,)."""
        roots = self.patches.change_contrast(roots) if self.recipe.augment else roots
        scores: Tensor = critic(roots, self.label, self.projection, self.mask)
        return scores.float()


def draw_volumes(model: nn.Module, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
    """Draw volumes of left breasts: (N, 1, D, H, W) in [0, 1]."""
    assert isinstance(model, GeneratorNetwork)
    code, texture = noise(len(model.start.components)), noise()
    bumps = model.start.draw_bumps(conditioning)
    draft = Draft.draw(model.start, code, texture, conditioning.projection, bumps)
    with distributed.autocast():
        roots = model(draft, code, conditioning.label, conditioning.projection, conditioning.lesion_mask)
    return model.start.to_intensities(roots.float())


def _full_precision() -> torch.autocast:
    """Turn mixed precision off."""
    return torch.autocast(distributed.device().type, enabled=False)
