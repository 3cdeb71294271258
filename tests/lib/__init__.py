# SPDX-License-Identifier: BSD-3-Clause
"""What the end-to-end tests share: a guest's disk, its tree, its workload, and the property."""
