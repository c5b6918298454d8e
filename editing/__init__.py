"""An edit is data: open a checkpoint, plan which tensors change, fold the projection out of them, write.

    checkpoint = open_checkpoint(base_dir)
    plan = plan_edit(checkpoint)                          # which tensors write to the residual stream
    basis_HK = orthonormal_basis(unit_directions_KH)
    write_edited(checkpoint, plan, Edit(basis_HK, alpha=1.0), out_dir, record={}, card=lambda proofs: "what was removed")

W' = W - alpha Q (Q^T W), rounded once to the checkpoint's dtype. Bases are float64. 16-bit weights are computed in float32
on a CPU; float32 weights, and everything on a GPU, in float64. The names live in the modules: checkpoint, plan, families,
projection, writer, card. Nothing heavy is imported here.
"""

from editing.errors import EditError

__all__ = ["EditError"]
