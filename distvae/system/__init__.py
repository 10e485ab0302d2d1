"""Calls to the operating system, with fallbacks for systems that lack a call.

Linux, for example, describes memory and processors in `/proc`; macOS does not. No other part of the
package uses these interfaces directly.
"""
