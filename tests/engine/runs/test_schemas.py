"""The typed rows are those of the schemas."""

import pyarrow as pa
import pytest

from engine.runs.schemas import ROLLOUT_SCHEMA, SCORE_SCHEMA, RolloutRow, ScoreRow


@pytest.mark.parametrize(("row", "schema"), [(RolloutRow, ROLLOUT_SCHEMA), (ScoreRow, SCORE_SCHEMA)])
def test_a_typed_row_has_the_columns_of_its_schema(row: type, schema: pa.Schema) -> None:
    assert list(row.__annotations__) == schema.names
