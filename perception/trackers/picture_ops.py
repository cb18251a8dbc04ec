"""Small operations on pictures and masks: resampling, cuts, refinement, prompts. OpenCV and NumPy only."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

Refinement = Literal["none", "guided", "grabcut"]
CUT = 0.35
"""Bhattacharyya distance of hue-saturation histograms above which a camera cut is assumed (the value of SeC)."""
FLOOR = 0.80
"""A refined mask with less IoU to the coarse one is thrown away. HQTrack's floor is 0.10: its refinement is a network
that may find more than the coarse mask had. An edge filter that changes so much has lost a thin part: with 0.10 the
mean J of bmx-trees fell by 0.03, with 0.80 by 0.01, and the clips that gain keep it (their IoU is 0.84 to 0.97)."""


def shrink(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A mask or soft mask (h, w) as shares of cells (rows, columns) float32 in [0, 1]: area average, so that a thin
    object leaves a trace instead of vanishing between the sample points."""
    return cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)


def shrink_channels(array: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Area average of (h, w, c) to (rows, columns, c) for any number of channels, where OpenCV takes four."""
    down, across = _averaging(array.shape[0], rows), _averaging(array.shape[1], columns)
    return np.einsum("ih,hwc,jw->ijc", down, array, across, optimize=True).astype(np.float32)


def _averaging(size: int, bins: int) -> np.ndarray:
    """(bins, size): the share of every bin that each old cell covers; rows sum to 1."""
    edges = np.linspace(0, size, bins + 1)
    starts = np.arange(size)
    covered = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (np.clip(covered, 0, None) * (bins / size)).astype(np.float32)


def histogram(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (512,) float32: hue, saturation and value in 8 bins each, summing to 1."""
    small = cv2.resize(image, (160, 90), interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 8, 8], [0, 180, 0, 256, 0, 256]).ravel()
    return (counts / max(float(counts.sum()), 1.0)).astype(np.float32)


def histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Bhattacharyya distance of two histograms that sum to 1, in [0, 1]."""
    return float(np.sqrt(max(0.0, 1.0 - float(np.sqrt(a.astype(np.float64) * b).sum()))))


def guided(image: np.ndarray, soft: np.ndarray, *, radius: int = 8, epsilon: float = 1e-3) -> np.ndarray:
    """Guided filter (He et al. 2010) of ``soft`` (h, w) float32 along the edges of ``image`` (h, w, 3) uint8."""
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    size = (2 * radius + 1, 2 * radius + 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, cv2.CV_32F, size, borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_soft = mean(guide), mean(soft)
    slope = (mean(guide * soft) - mean_guide * mean_soft) / (mean(guide * guide) - mean_guide**2 + epsilon)
    offset = mean_soft - slope * mean_guide
    return np.clip(mean(slope) * guide + mean(offset), 0.0, 1.0)


def grabcut(image: np.ndarray, soft: np.ndarray, *, band: int = 9) -> np.ndarray:
    """GrabCut in a band around the border of ``soft`` > 0.5; inside and outside of the band stay. (h, w) float32."""
    mask = (soft > 0.5).astype(np.uint8)
    kernel = np.ones((band, band), np.uint8)
    sure, possible = cv2.erode(mask, kernel), cv2.dilate(mask, kernel)
    if not sure.any() or possible.all():
        return soft
    labels = np.where(sure > 0, cv2.GC_FGD, np.where(possible == 0, cv2.GC_BGD, cv2.GC_PR_BGD)).astype(np.uint8)
    labels[(mask > 0) & (sure == 0)] = cv2.GC_PR_FGD
    inside, outside = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # its k-means draws; the same picture must give the same mask
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, labels, (0, 0, 1, 1), outside, inside, 1, cv2.GC_INIT_WITH_MASK)
    return ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)


def refine(image: np.ndarray, soft: np.ndarray, how: Refinement) -> tuple[np.ndarray, float]:
    """``soft`` (h, w) float32 refined along the picture's edges, and IoU(refined, coarse). Under the floor rule the
    coarse one comes back. Works on the box of the object and 32 pixels around it."""
    coarse = soft > 0.5
    box = cv2.boundingRect(coarse.astype(np.uint8))
    if how == "none" or not box[2]:
        return soft, 1.0
    x0, y0 = max(0, box[0] - 32), max(0, box[1] - 32)
    x1, y1 = box[0] + box[2] + 32, box[1] + box[3] + 32
    window = (slice(y0, y1), slice(x0, x1))
    piece, part = np.ascontiguousarray(image[window]), np.ascontiguousarray(soft[window])
    refined = soft.copy()
    refined[window] = guided(piece, part) if how == "guided" else grabcut(piece, part)
    agreement = mask_iou(refined > 0.5, coarse)
    return (refined, agreement) if agreement >= FLOOR else (soft, agreement)


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks (h, w) bool; 1 where both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def components(mask: np.ndarray, least: int) -> list[np.ndarray]:
    """Connected pieces (8 neighbours) of at least ``least`` cells, largest first."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    order = sorted(range(1, count), key=lambda at: -int(stats[at, cv2.CC_STAT_AREA]))
    return [labels == at for at in order if stats[at, cv2.CC_STAT_AREA] >= least]
