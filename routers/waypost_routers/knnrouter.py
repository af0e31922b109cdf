"""Average each LLM's scores on the most similar training questions (k nearest neighbours).

Similarity is the cosine of unit vectors; estimates are shrunk towards each LLM's training mean
(RouterBench, arXiv 2403.12031; arXiv 2505.12601). The search is exact, or by an index for many
training questions. One search serves quality, output tokens, recorded dollars, confidence and the
flag for queries out of distribution.
"""

from __future__ import annotations

from waypost_routers._neighbors.regression import NeighbourRegression


class KNNRouter(NeighbourRegression):
    """A regression on the measured scores of the k nearest neighbours; unmeasured cells left out.

    When to take it:
        As the first router to try. It fits in under a second and chooses its one important
        parameter (k) itself. It takes a new LLM from few outcomes, and flags queries unlike its
        data. Its memory grows with the number of training questions.

    Args:
        k: Number of neighbours, capped at the number of training questions. None chooses it at
            fit (5 to 320) by leave-one-out decisions: the largest k whose mean score is within one
            standard error of the best.
        weights: ``uniform``, or ``softmax``: exp((similarity - highest similarity) / tau), so that
            the nearest neighbour has weight 1.
        tau: Temperature of ``softmax``, in units of cosine similarity.
        kappa: Weight of each LLM's training mean, counted in neighbours.
        ood_quantile: A query is out of distribution if its highest similarity is below this
            quantile of the training questions' similarities to their nearest other question; 0
            flags only queries below all of them.
        index: ``exact`` compares a query with every training question, ``ivf`` with those in the
            nearest of faiss's inverted lists; ``auto`` is ``ivf`` above 50,000 questions.
            ``fit`` itself always searches exactly.

    Learned by ``fit`` (n_rows training questions with at least one score, n_llms candidates):
        memory_: float32 (n_rows, d), their embeddings.
        scores_: float32 (n_rows, n_llms), NaN where not measured.
        highest_: float32 (n_rows,), the highest score of each question.
        tokens_, dollars_: As ``scores_``, output tokens and recorded dollars; no row if none were
            recorded.
        best_share_: (n_llms,) share of the questions for which each LLM is among the best.
        k_: The k in use.
        index_: The index; None if the search is exact.
        similarity_floor_: Similarity below which a query is out of distribution.

    Example:
        >>> from waypost import make_router
        >>> from waypost.contracts.routing_data import read_routing_data
        >>> from waypost.encoders import make_encoder
        >>> data = read_routing_data("serve_configs/starter/data")
        >>> encoder = make_encoder("hashing")  # needs no weights; the command takes "static"
        >>> router = make_router("knnrouter", {"k": 20})
        >>> router.encoder = encoder
        >>> vectors = encoder.encode(data.queries)
        >>> router = router.fit(data.with_embeddings(vectors, encoder.id))
        >>> decision = router.route_single({"query": "What is 12 * 7?", "lambda": 0.5})
        >>> decision.ranking
        ('qwen2.5-coder-1.5b', 'qwen2.5-coder-0.5b', 'smollm2-135m')
    """

    name = "knnrouter"
