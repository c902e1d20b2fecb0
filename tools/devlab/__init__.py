"""Virtual devices made of real parts: a real sshd, a real adbd, real aarch64 runtimes under QEMU, a whole board.

Everything is kept in one cache folder (`.cache/devlab`). A part that this machine cannot have raises
`UnavailableError`, which says why; tests skip with that reason.
"""
