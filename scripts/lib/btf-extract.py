# SPDX-License-Identifier: MIT OR Apache-2.0
"""usage: btf-extract.py IMAGE OUT

Writes the BTF of a kernel image to OUT. IMAGE is an uncompressed kernel in whatever container (ELF, arm64 Image, or
/sys/kernel/btf/vmlinux itself): the blob is found by its own header, whose lengths must fit. Ends with status 1 if there is none.
"""

import struct
import sys

HEADER = struct.Struct("<HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
START = struct.pack("<HBBI", 0xEB9F, 1, 0, HEADER.size)


def blobs(image):
    """All byte ranges of the image that begin with a plausible BTF header and end where that says."""
    at = image.find(START)
    while at >= 0:
        if at + HEADER.size <= len(image):
            type_off, type_len, str_off, str_len = HEADER.unpack_from(image, at)[4:]
            end = at + HEADER.size + str_off + str_len
            if type_off == 0 and type_len == str_off and str_len > 0 and end <= len(image) and image[end - 1] == 0:
                yield image[at:end]
        at = image.find(START, at + 1)


def main():
    with open(sys.argv[1], "rb") as file:
        image = file.read()
    found = max(blobs(image), key=len, default=None)
    if found is None:
        sys.exit(1)
    with open(sys.argv[2], "wb") as file:
        file.write(found)


main()
