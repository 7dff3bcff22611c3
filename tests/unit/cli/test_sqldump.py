"""Dumps of MySQL and MariaDB: every form of value, and the same rows however the bytes arrive."""

import io
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkrelay.cli import sqldump
from arkrelay.cli.sqldump import Dump
from arkrelay.cli.state import Failed

CREATE = b"""\
CREATE TABLE `t` (
  `id` int(11) NOT NULL AUTO_INCREMENT,
  `name` varchar(255) DEFAULT 'a;b(c,',
  `kind` enum('x','y;`') DEFAULT NULL COMMENT 'why, `this`',
  `price` decimal(18,6) DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `index_t_on_name` (`name`(8)),
  CONSTRAINT `c` FOREIGN KEY (`kind`) REFERENCES `k` (`id`)
) ENGINE=InnoDB AUTO_INCREMENT=3 DEFAULT CHARSET=utf8mb4;
"""
DUMP = b"""/*M!999999\\- enable the sandbox mode */
-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB
--
-- Host: localhost    Database: postal
-- ------------------------------------------------------
/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
DROP TABLE IF EXISTS `t`;
/*!40101 SET character_set_client = utf8 */;
%s
LOCK TABLES `t` WRITE;
/*!40000 ALTER TABLE `t` DISABLE KEYS */;
INSERT INTO `t` VALUES (1,'it''s \\'quoted\\' ;\\n\\\\ \\Z\\0\\%%','x',-1.500000),
(2,NULL,NULL,NULL),(3,_binary 'b\\"in',"y",0x6869);
INSERT INTO `t` (`name`, `id`) VALUES (x'6869', 4), (N'n', 5), (_utf8mb4 'u', 6);
/*!40000 ALTER TABLE `t` ENABLE KEYS */;
UNLOCK TABLES;
INSERT INTO `other` VALUES ('; INSERT INTO `t` VALUES (9,9,9,9); -- ',1),(b'101',TRUE);
DELIMITER ;;
CREATE PROCEDURE `p`() BEGIN INSERT INTO `t` VALUES (now(), 1, 1, 1); SELECT 1; END ;;
DELIMITER ;
INSERT INTO `t` VALUES (7,TRUE,b'101',1e3) ON DUPLICATE KEY UPDATE `id` = 1;
-- Dump completed on 2026-01-31 12:00:00
"""
ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": "it's 'quoted' ;\n\\ \x1a\0\\%", "kind": "x", "price": "-1.500000"},
    {"id": "2", "name": None, "kind": None, "price": None},
    {"id": "3", "name": 'b"in', "kind": "y", "price": "hi"},
    {"name": "hi", "id": "4"},
    {"name": "n", "id": "5"},
    {"name": "u", "id": "6"},
    {"id": "7", "name": "1", "kind": "5", "price": "1e3"},
]


class Slow(io.RawIOBase):
    """A file that gives few bytes at a time, whatever it is asked for."""

    def __init__(self, content: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(content), most

    def read(self, size: int = -1) -> bytes:
        return self._file.read(random.randint(1, self._most) if size else 0)


def rows(content: bytes, most: int = 1 << 20, table: str = "t") -> list[dict[str, Any]]:
    dump = Dump(Slow(content, most), "dump.sql")  # type: ignore[arg-type]  # it has what is used
    return [dict(row) for _, name, row in dump.rows(lambda _database, name: name == table) if name == table]


@pytest.mark.parametrize("most", [1, 2, 7, 64, 1 << 20])
def test_the_same_rows_however_the_bytes_arrive(most: int) -> None:
    assert rows(DUMP.replace(b"%s", CREATE).replace(b"%%", b"%"), most) == ROWS


def test_the_database_is_known_by_the_header_by_use_and_by_name() -> None:
    content = (
        b"-- Host: localhost    Database: postal-server-1\n" + CREATE + b"INSERT INTO `t` VALUES (1,'','',1);\n"
        b"--\n-- Current Database: `two`\n--\n\nCREATE DATABASE /*!32312 IF NOT EXISTS*/ `two`;\nUSE `two`;\n"
        b"INSERT INTO t (id) VALUES (2);\nINSERT INTO `three`.`t` (`id`) VALUES (3);\n"
    )
    dump = Dump(io.BytesIO(content), "d")
    assert [(where, row["id"]) for where, _, row in dump.rows(lambda *_: True)] == [
        ("postal-server-1", "1"),
        ("two", "2"),
        ("three", "3"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(CREATE + b"INSERT INTO `t` VALUES (1,'a", "cut off", id="in-a-string"),
        pytest.param(CREATE + b"INSERT INTO `t` VALUES (1,'a','x',1)", "ends in the middle", id="no-semicolon"),
        pytest.param(CREATE + b"INSERT INTO `o` VALUES (1,'a", "ends in the middle", id="in-what-is-passed"),
        pytest.param(CREATE + b"INSERT INTO `t` VALUES (1,2);", "has 2 values, and the table 4 columns", id="narrow"),
        pytest.param(CREATE + b"INSERT INTO `t` VALUES (1,now(),2,3);", "byte ", id="a-function"),
        pytest.param(b"INSERT INTO `t` VALUES (1);", "--complete-insert", id="no-create"),
        pytest.param(b"/* no end", "ends in the middle", id="in-a-comment"),
    ],
)
def test_what_is_cut_off_or_odd_is_said_with_its_place(content: bytes, says: str) -> None:
    with pytest.raises(Failed, match=r"dump\.sql") as caught:
        rows(content)
    assert says in f"{caught.value} {caught.value.hint}"


def test_what_is_not_wanted_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqldump, "CHUNK_BYTES", 1000)
    long = b"INSERT INTO `o` VALUES (" + b"'" + b"it''s \\' " * 100_000 + b"');\n"
    dump = Dump(io.BytesIO(long + CREATE + b"INSERT INTO `t` VALUES (1,'a','x',1);\n" + long), "d")
    most = 0
    for _ in dump.rows(lambda _database, name: name == "t"):
        most = max(most, len(dump._buffer))
    assert 0 < most < 20_000


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_rubbish_is_read_or_refused_and_nothing_else(content: bytes) -> None:
    for before in (b"", CREATE, CREATE + b"INSERT INTO `t` VALUES ("):
        try:
            rows(before + content)
        except Failed:
            pass


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5), st.integers(1, 50))
@settings(max_examples=100)
def test_any_text_comes_back_as_it_was(texts: list[str], most: int) -> None:
    def quoted(text: str) -> bytes:
        for char, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\0", "\\0"), ("\x1a", "\\Z")):
            text = text.replace(char, escaped)
        return b"'" + text.encode() + b"'"

    content = b"INSERT INTO `t` (`a`) VALUES " + b",".join(b"(" + quoted(one) + b")" for one in texts) + b";\n"
    assert [row["a"] for row in rows(content, most)] == texts
