"""Configuration of a training run of Router-R1."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from waypost.config import StrictModel
from waypost_rl.prompt import BUDGETS, MAX_SEARCHES
from waypost_rl.protocol import INFORMATION_TOKENS

Alpha = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Candidate(StrictModel):
    """An LLM that the policy may query.

    Attributes:
        description: Its line in the prompt: family, size, strengths.
        output_price: USD per million generated tokens.
        input_price: USD per million prompt tokens.
        pool_name: Its name in the pool; default the name of the entry.
    """

    description: str = ""
    output_price: float | None = Field(default=None, ge=0)
    input_price: float | None = Field(default=None, ge=0)
    pool_name: str | None = None


class ReplayedSource(StrictModel):
    """Recorded answers of a routing-data folder.

    Attributes:
        kind: ``replayed``.
        data: Routing-data folder with the column ``response``.
    """

    kind: Literal["replayed"]
    data: str


class HttpSource(StrictModel):
    """LLMs behind an OpenAI-style endpoint, such as a running ``waypost serve``.

    Attributes:
        kind: ``http``.
        base_url: Address up to ``/v1``.
        api_key_env: Environment variable with the key; null sends none.
        timeout_s: Seconds after which a call counts as failed.
        at_once: Maximum calls of one LLM at a time; a call waits for its turn within its time-out.
        max_tokens: Maximum tokens of an answer.
    """

    kind: Literal["http"]
    base_url: str
    api_key_env: str | None = None
    timeout_s: float = Field(default=60, gt=0)
    at_once: Positive = 64
    max_tokens: Positive = 512


class HandleSource(StrictModel):
    """LLMs of a Serve application on the same Ray cluster, called by their handles.

    The cluster is that of RAY_ADDRESS, which a job has set.

    Attributes:
        kind: ``handle``.
        app: Name of the application.
        timeout_s: As in the ``http`` source.
        at_once: As in the ``http`` source.
        max_tokens: As in the ``http`` source.
    """

    kind: Literal["handle"]
    app: str = "waypost"
    timeout_s: float = Field(default=60, gt=0)
    at_once: Positive = 64
    max_tokens: Positive = 512


Source = Annotated[ReplayedSource | HttpSource | HandleSource, Field(discriminator="kind")]


class QuestionsConfig(StrictModel):
    """Questions of a run.

    Attributes:
        data: Routing-data folder, or a folder of ``waypost data queries``.
        split: Its split.
        limit: Maximum questions, drawn by the seed; null takes all.
        max_characters: Leaves out longer questions, options included; null keeps all.
    """

    data: str
    split: str = "train"
    limit: int | None = Field(default=None, ge=1)
    max_characters: int | None = Field(default=None, ge=1)


class EpisodeConfig(StrictModel):
    """Rules of an episode; the defaults are the paper's.

    Attributes:
        max_turns: Maximum searches and malformed actions, before the last generation.
        policy_tokens: Maximum tokens of one generation.
        information_tokens: Maximum tokens of a reply in the context.
        prompt_tokens: Maximum tokens of the prompt; questions with a longer one are left out.
        response_tokens: Maximum tokens after the prompt.
        corrective: Whether malformed actions are corrected, see `waypost_rl.protocol.observe`.
        prompt: Text of another prompt, with ``{question}``; null is Waypost's.
        temperature: Of the samples in training.
    """

    max_turns: int = Field(default=MAX_SEARCHES, ge=1, le=16)
    policy_tokens: Positive = 1024
    information_tokens: Positive = INFORMATION_TOKENS
    prompt_tokens: Positive = 2048
    response_tokens: Positive = 4096
    corrective: bool = True
    prompt: str | None = None
    temperature: float = Field(default=1.0, gt=0)


class RewardConfig(StrictModel):
    """Reward of an episode.

    Attributes:
        alpha: Weight of cost: one for all episodes, or several, of which each episode draws one and
            reads it in its prompt as a budget (high 0, medium 0.7, low 0.9).
        outcome: ``metric`` scores by the metric of each question (exact match, F1, letter,
            number); or ``exact_match`` or ``f1`` for all.
        rule: ``reference`` or ``paper``, see `waypost_rl.reward.total_reward`.
        exactly_one_colon: As in `waypost_rl.episode_reward.RewardSettings`.
        include_input: Counts the candidates' prompt tokens as well.
        warmup: Questions whose calls measure the cost scale, each asked of every candidate.
        cost_low: With ``cost_high`` sets the scale: the root of the cost, in millionths of a
            dollar, whose cost reward is 1.
        cost_high: The root of the cost whose cost reward is 0.
        route_entropy: Weight of the bonus for choices that a batch makes rarely; 0 is none.
    """

    alpha: Alpha | tuple[Alpha, ...] = 0.0
    outcome: Literal["metric", "exact_match", "f1"] = "metric"
    rule: Literal["reference", "paper"] = "reference"
    exactly_one_colon: bool = False
    include_input: bool = False
    warmup: Positive = 64
    cost_low: float | None = Field(default=None, ge=0)
    cost_high: float | None = Field(default=None, ge=0)
    route_entropy: float = Field(default=0.0, ge=0)

    @property
    def alphas(self) -> tuple[float, ...]:
        """All weights that an episode may have."""
        return self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)

    @property
    def budget(self) -> bool:
        """Whether prompts contain the budget."""
        return isinstance(self.alpha, tuple)

    @model_validator(mode="after")
    def _consistent(self) -> RewardConfig:
        if not self.alphas:
            raise ValueError("alpha: the list is empty")
        if self.budget and (unknown := set(self.alphas) - set(BUDGETS.values())):
            words = ", ".join(f"{value:g} ({word})" for word, value in BUDGETS.items())
            shown = ", ".join(f"{one:g}" for one in sorted(unknown))
            raise ValueError(f"alpha: a list may hold {words}, the budgets of the prompt; {shown}")
        if (self.cost_low is None) != (self.cost_high is None):
            raise ValueError("cost_low and cost_high: set both, or neither")
        if (self.cost_low or 0.0) >= (self.cost_high or float("inf")):
            raise ValueError("cost_high: expected more than cost_low")
        return self


class LoraConfig(StrictModel):
    """Low-rank adapters that are trained instead of all weights.

    Attributes:
        rank: Rank of the updates.
        scale: Their scale (lora_alpha).
        dropout: Dropout before the adapters. Above 0 old and new probabilities differ by chance.
        modules: Names of the adapted layers; null takes the attention and MLP projections.
    """

    rank: Positive = 16
    scale: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    modules: tuple[str, ...] | None = None


class KLConfig(StrictModel):
    """Penalty on the divergence from the reference policy, which is the start policy.

    Attributes:
        coefficient: Weight of the penalty at the start.
        floor: Minimum of an adaptive weight.
        target: Divergence per episode, in nats, that an adaptive weight keeps; null keeps the
            weight fixed.
        horizon: Episodes within which an adaptive weight changes by its error.
    """

    coefficient: float = Field(default=0.001, ge=0)
    floor: float = Field(default=0.0, ge=0)
    target: float | None = Field(default=None, gt=0)
    horizon: float = Field(default=10_000, gt=0)


class PPOConfig(StrictModel):
    """Proximal policy optimisation (arXiv 1707.06347); the defaults are the paper's of Router-R1.

    Attributes:
        learning_rate: Of the policy (Adam).
        critic_learning_rate: Of the value head.
        warmup_steps: Steps over which both rates rise from 0.
        batch_size: Episodes of a step, of all workers together.
        mini_batch_size: Episodes of a forward and backward pass of one worker.
        accumulation: Mini-batches of an optimizer step.
        epochs: Passes over a batch.
        gamma: Discount.
        lam: Lambda of generalized advantage estimation (arXiv 1506.02438).
        clip: Clip range of the probability ratio.
        value_clip: Clip range of the values.
        value_coefficient: Weight of the value loss.
        entropy: Weight of the entropy bonus, on the policy's own tokens.
        max_grad_norm: Gradients are scaled down to this norm; null leaves them.
        max_ratio: A mini-batch whose mean probability ratio is above it changes no weight.
        kl: Penalty on the divergence from the start policy.
        lora: Adapters; null trains all weights.
        mixed_precision: ``bf16`` computes in bfloat16, null in float32; weights are float32 in any
            case.
        gradient_checkpointing: Computes activations again in the backward pass: less memory, more
            time.
    """

    learning_rate: float = Field(default=1e-6, gt=0)
    critic_learning_rate: float = Field(default=1e-5, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    batch_size: Positive = 64
    mini_batch_size: Positive = 8
    accumulation: Positive = 4
    epochs: Positive = 1
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=1.0, ge=0, le=1)
    clip: float = Field(default=0.2, gt=0)
    value_clip: float = Field(default=0.5, gt=0)
    value_coefficient: float = Field(default=0.1, ge=0)
    entropy: float = Field(default=0.001, ge=0)
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    max_ratio: float = Field(default=10.0, gt=1)
    kl: KLConfig = KLConfig()
    lora: LoraConfig | None = None
    mixed_precision: Literal["bf16"] | None = None
    gradient_checkpointing: bool = False


class WarmStartConfig(StrictModel):
    """Supervised training on synthetic well-formed episodes before the first step.

    Each episode searches once, with a candidate drawn uniformly at random, and answers by its
    reply: the policy learns the form, not whom to ask.

    Attributes:
        episodes: Number of synthetic episodes.
        epochs: Passes over them.
        learning_rate: Of Adam; it falls linearly to 0.
        batch_size: Episodes of a step.
        query_words: Words of the question in the synthetic search.
    """

    episodes: Positive
    epochs: Positive = 1
    learning_rate: float = Field(default=1e-4, gt=0)
    batch_size: Positive = 16
    query_words: Positive = 12


class SamplerConfig(StrictModel):
    """What samples from the policy.

    Attributes:
        kind: ``transformers`` runs the trained model itself, with a key-value cache kept across
            turns; ``vllm`` runs vLLM, into which the weights are copied after each step.
        gpu_memory_utilization: Part of a GPU's memory for vLLM.
        kv_cache_gib: GiB of vLLM's cache on a CPU.
    """

    kind: Literal["transformers", "vllm"] = "transformers"
    gpu_memory_utilization: float = Field(default=0.4, gt=0, le=1)
    kv_cache_gib: float = Field(default=1.0, gt=0)


class StopConfig(StrictModel):
    """When a run ends before its last step.

    Attributes:
        patience: Steps without a better mean reward of the last `window` steps; null never.
        window: Steps of that mean.
        route_entropy: Ends when the normalised entropy of routes, in [0, 1], of `window` steps is
            below it: the policy has collapsed to one LLM; null never.
    """

    patience: int | None = Field(default=None, ge=1)
    window: Positive = 10
    route_entropy: float | None = Field(default=None, ge=0, le=1)


class WorkersConfig(StrictModel):
    """Processes of Ray Train.

    Attributes:
        count: Number; 1 trains in the process of the command.
        gpus: GPUs of each.
        cpus: CPUs of each.
    """

    count: Positive = 1
    gpus: float = Field(default=0, ge=0)
    cpus: float = Field(default=1, gt=0)


class RunConfig(StrictModel):
    """A training run.

    Attributes:
        out: Folder of the run. The same command in the same folder continues it.
        base: Start policy: a folder or hub name of an instruct model.
        candidates: Name in the prompt -> LLM.
        pool: Where the candidates answer.
        cache: Whether answers of a live pool are recorded and used again in this run.
        questions: What is asked.
        episode: Rules of an episode.
        reward: Reward of an episode.
        ppo: Method.
        warm_start: Supervised training first; null starts with the base model.
        sampler: What samples.
        stop: Early ends.
        workers: Processes.
        steps: Number of steps.
        learn: False only plays episodes: a control whose weights never change.
        seed: Of everything drawn.
        checkpoint_every: Steps between checkpoints.
        transcripts_every: Steps between files with the episodes of a step.
    """

    out: str
    base: str
    candidates: dict[str, Candidate] = Field(min_length=1)
    pool: Source
    cache: bool = True
    questions: QuestionsConfig
    episode: EpisodeConfig = EpisodeConfig()
    reward: RewardConfig = RewardConfig()
    ppo: PPOConfig = PPOConfig()
    warm_start: WarmStartConfig | None = None
    sampler: SamplerConfig = SamplerConfig()
    stop: StopConfig = StopConfig()
    workers: WorkersConfig = WorkersConfig()
    steps: Positive = 225
    learn: bool = True
    seed: int = Field(default=0, ge=0)
    checkpoint_every: Positive = 10
    transcripts_every: Positive = 10

    @model_validator(mode="after")
    def _divides(self) -> RunConfig:
        whole = self.ppo.mini_batch_size * self.ppo.accumulation * self.workers.count
        if self.ppo.batch_size % whole:
            raise ValueError(
                f"ppo.batch_size is {self.ppo.batch_size}; expected a multiple of {whole} "
                "(mini_batch_size x accumulation x workers.count)"
            )
        return self
