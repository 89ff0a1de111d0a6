"""Upstream's name of the module that has ``BufferPool``."""

from .store import BufferLease, BufferLeaseView, BufferPool

__all__ = ["BufferLease", "BufferLeaseView", "BufferPool"]
