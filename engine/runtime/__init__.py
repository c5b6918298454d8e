"""Interventions while the model runs: each request has its own direction, subspace or addition, in one batch.

from engine.runtime.interventions import Intervention, Interventions

table = Interventions(num_sites=30, hidden_size=576, num_slots=64, max_rank=8, max_tokens=2048)
table.put(1, Intervention(rows=q_KH, shares_NK=alphas_NK, offsets_NK=zeros_NK))
table.fill([1, 0], [7, 3])            # seven tokens of a request in slot 1, then three of one that nothing is done to
table.act(hidden_TH, site=4)        # in place
"""
