"""``streammem.numeric`` is NumPy's, to the bit, and imports less."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streammem.numeric import distinct, median

# Sums of two must fit: NumPy adds an even number's two middle values in the same type.
NUMBERS = st.one_of(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e300, 1e300)),
    hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 2**50)),
)


@given(NUMBERS)
def test_the_median_is_numpys_to_the_bit(values: np.ndarray) -> None:
    assert median(values) == float(np.median(values))


@given(hnp.arrays(np.int64, st.integers(0, 60), elements=st.integers(-20, 20)))
def test_distinct_is_unique(values: np.ndarray) -> None:
    assert np.array_equal(distinct(values), np.unique(values))


def test_neither_imports_masked_arrays() -> None:
    code = (
        "import sys, numpy as np\nfrom streammem.numeric import distinct, median\n"
        "median(np.arange(4.0)); distinct(np.arange(4))\nassert 'numpy.ma' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
