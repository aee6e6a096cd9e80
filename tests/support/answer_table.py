"""Answers in bytes, sound and odd: what readers of HTTP have to agree on."""

from __future__ import annotations

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"content-length: 2\r\n\r\n{}"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"

HEADS = [
    SIZED, OK + b"\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n{}", SIZED.replace(b"\r\n", b"\n"),
    OK + b"content-length: 2\n\r\n{}", SIZED.replace(b" OK", b""), SIZED.replace(b"OK", b""),
    SIZED.replace(b"1.1", b"2.0"), SIZED.replace(b"1.1", b"1.2"), SIZED.replace(b"1.1", b"0.9"),
    SIZED.replace(b"1.1", b"1.10"), SIZED.replace(b"200", b"099"), SIZED.replace(b"200", b"000"),
    SIZED.replace(b"200", b"1000"), SIZED.replace(b"200", b"999"), SIZED.replace(b"200", b"20"),
    b"\r\n" + SIZED, b"\n" + SIZED, b" " + SIZED, b"ICY" + SIZED[8:], SIZED.replace(b"HTTP",
    b"http"),
    b"", b"HTTP/1.1 200 OK\r\nserv", b"\x15\x03\x01\x00\x02\x02\x46", b"\x15", b"<html>\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n", b"HTTP/1.1\t200 OK\r\n\r\n", b"HTTP/1.1 200 O\0K\r\n\r\n",
    b"HTTP/1.1 200 O\x01K\r\n\r\n", b"HTTP/1.1 200 O\rK\r\n\r\n", b"HTTP/1.1 200\tOK\r\n\r\n",
    b"\r\n\r\n", b"\n\n",
]  # fmt: skip
ANNOUNCED = [
    first + b"\r\n" + fields + b"\r\n" + SIZED
    for first in (b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Early", b"HTTP/1.0 100 C",
    b"HTTP/1.1 101 S")
    for fields in (
        b"", b"link: x\r\n", b"connection: close\r\n", b"content-length: 5\r\n",
        b"transfer-encoding: chunked\r\n", b"upgrade: x\r\nconnection: upgrade\r\n", b"x y\r\n",
    )
]  # fmt: skip
FIELDS = [
    OK + field + b"\r\ncontent-length: 2\r\n\r\n{}"
    for field in (
        b"x: a\r\n b", b"x: a\r\n\tb\r\n  c", b"x: a\r\n ", b" b", b"x : a", b"x", b": a", b"x:",
        b"x:a",
        b"x:\ta\tb \t", b"x: a\0b", b"x: a\x01b", b"x: a\x1b[2J", b"x: a\x7fb", b"x: a\xffb",
        b"x: \xc3\xa4",
        b"x: a\rb", b"x: a\r\r\ny: b", b"x: a\x0bb", b"x: a\x0cb", b"x\xff: a", b"x(a): a",
        b"x\0: a",
        b"X-Ab: 1\r\nx-ab: 2", b"x: a: b", b"connection: close", b"connection: keep-alive, Close",
        b"connection: closed",
        b"connection: close\x85", b"connection: a,\tclose ,b",
        b"connection: keep-alive", b"proxy-connection: close",
        b"upgrade: x\r\nconnection: upgrade", b"content-length: 2", b"content-length: 3",
        b"x: a\n b",
    )
]  # fmt: skip
LENGTHS = [
    begin + b"\r\ncontent-length:" + length + b"\r\n\r\n{}" + more
    for begin, length, more in [
        *((OK[:-2], value, b"") for value in (
            b"2, 2", b"2,3", b"2,", b",", b"+2", b"-1", b" 2 ", b"\t2", b"", b" ", b"2.0", b"0x2",
            b"\xb2",
            b"9" * 20, b"9" * 21, b"0" * 19 + b"2", b"0" * 20 + b"2", b"18446744073709551617",
            b"1_0",
            b"0", b"1", b"5", b"2\r\ntransfer-encoding: chunked", b"2;a",
        )),
        (OK[:-2], b"2", b"abc"), (OK[:-2], b"2", b"HTTP/1.1 500 E\r\n\r\n"), (OK[:-2], b"2",
        b"\r\n"),
        (b"HTTP/1.1 204 N", b"2", b""), (b"HTTP/1.1 304 N", b"2", b""), (b"HTTP/1.1 205 N", b"2",
        b""),
        (b"HTTP/1.1 204 N", b"0", b""), (b"HTTP/1.0 200 O", b"2", b""), (b"HTTP/1.1 404 N", b"2",
        b""),
        (b"HTTP/1.0 200 O\r\nconnection: keep-alive", b"2", b""),
    ]
]  # fmt: skip
CODINGS = [
    version + b" 200 OK\r\n" + fields + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    for version in (b"HTTP/1.1", b"HTTP/1.0")
    for fields in (
        b"transfer-encoding: CHUNKED", b"transfer-encoding: gzip",
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: chunked, gzip", b"transfer-encoding: identity", b"transfer-encoding:",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        b"transfer-encoding: chunked;a=b",
        b"transfer-encoding: chunked\r\ncontent-length: 5",
        b"content-length: 5\r\ntransfer-encoding: chunked",
        b"transfer-encoding: chunked\r\ncontent-length: x",
        "transfer-encoding: chun\u212aed".encode(),
        b"transfer-encoding: chunked \t", b"connection: keep-alive\r\ntransfer-encoding: chunked",
    )
]  # fmt: skip
CHUNKS = [
    CHUNKED + chunks
    for chunks in (
        b"2\r\n{}\r\n0\r\n\r\n", b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", b"2\n{}\n0\n\n",
        b"2\r\n{}\n0\r\n\r\n",
        b"2;a=b\r\n{}\r\n0;x\r\n\r\n", b'2;a="b c"\r\n{}\r\n0\r\n\r\n', b"2 \r\n{}\r\n0\r\n\r\n",
        b"2 ;a\r\n{}\r\n0\r\n\r\n", b"2\t \r\n{}\r\n0\r\n\r\n", b"2;\n\r\n{}\r\n0\r\n\r\n",
        b" 2\r\n{}\r\n0\r\n\r\n",
        b"0" * 19 + b"2\r\n{}\r\n0\r\n\r\n", b"0" * 20 + b"2\r\n{}\r\n0\r\n\r\n",
        b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n", b"+2\r\n{}\r\n", b"0x2\r\n{}\r\n", b"2_0\r\n{}\r\n", b"zz\r\n{}\r\n",
        b"\r\n2\r\n{}\r\n", b"",
        b"2\r\n{}\r\n0\r\nx-y: z\r\n\r\n", b"2\r\n{}\r\n0\r\nx y: z\r\n\r\n",
        b"2\r\n{}\r\n0\r\nx-y: z\n\n",
        b"2\r\n{}\r\n0\r\ncontent-length: 3\r\n\r\n",
        b"2\r\n{}\r\n0\r\ncontent-length: x\r\n\r\n", b"2\r\n{}\r\n0\r\n\n",
        b"2\r\n{}\r\n", b"2\r\n{}\r\n0\r\n", b"2\r\n{}\r\n0\r\n\r", b"1\r\n{}\r\n0\r\n\r\n",
        b"3\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\n\r\nmore", b"2\r\n{}\r\n0\r\n\r\n\r\n",
        b"2\r\n{}\r\n0\r\nx: y\r\n\r\nmore", b"2\r\n{}x\r\n", b"2\r\n{}\rx",
    )
]  # fmt: skip
TABLE = [*HEADS, *ANNOUNCED, *FIELDS, *LENGTHS, *CODINGS, *CHUNKS]
