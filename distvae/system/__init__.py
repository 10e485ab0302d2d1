"""Calls to the operating system, each with a fallback where the system lacks it.

Linux has the most: files of the kernel in `/proc`, memory without a name, handles of processes.
macOS has none of these. No other part of the package asks for them directly.
"""
