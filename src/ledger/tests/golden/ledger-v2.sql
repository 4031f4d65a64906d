-- A ledger of schema version 2, as text.
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = 1464096590;
PRAGMA user_version = 2;
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE run (
    run INTEGER PRIMARY KEY,
    domain TEXT, name TEXT, at INTEGER, seen INTEGER,
    libvirt_id INTEGER, pid INTEGER, start_ticks INTEGER, boot TEXT, evidence_lost INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX run_by_domain ON run (domain, run);
CREATE TABLE evidence (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    position INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, times INTEGER NOT NULL, fact TEXT NOT NULL,
    PRIMARY KEY (run, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE ending (
    run INTEGER PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    domain TEXT NOT NULL, name TEXT NOT NULL,
    started INTEGER NOT NULL, ended_after INTEGER, ended INTEGER NOT NULL,
    cause TEXT NOT NULL, certainty TEXT NOT NULL, row TEXT NOT NULL,
    because TEXT NOT NULL, despite TEXT NOT NULL,
    exit_code INTEGER NOT NULL, exit_reason INTEGER NOT NULL, message TEXT NOT NULL,
    acknowledged_at INTEGER, acknowledged_by TEXT, facts INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX ending_by_time ON ending (ended, run);
CREATE INDEX ending_by_domain ON ending (domain, ended, run);
CREATE INDEX ending_with_facts ON ending (ended, run) WHERE facts > 0;
INSERT INTO meta VALUES ('alive', 1800000500000000000), ('last_run', 42);
INSERT INTO run VALUES
    (1, '01010101-0101-0101-0101-010101010101', 'vm-1', 1800000001000000000, 1, 7, 4242, -4, '0f1e2d3c', 0),
    (2, '02020202-0202-0202-0202-020202020202', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0),
    (3, '03030303-0303-0303-0303-030303030303', 'vm-3', 1800000003000000000, 1, 7, 4242, -4, '0f1e2d3c', 0);
INSERT INTO evidence VALUES
    (1, 0, 1800000001000000000, 1800000002000000000, 2, '{"requested":{"what":"destroy","who":"ovirt-engine \"quoted\" ü"}}'),
    (1, 1, 1800000002000000000, 1800000003000000000, 2, '{"host":{"stopped":{"other":99}}}'),
    (1, 2, 1800000003000000000, 1800000004000000000, 2, '{"log-text":"qemu: line one\nline two\t\\"}'),
    (3, 0, 1800000001000000000, 1800000002000000000, 2, '"log-silent"'),
    (3, 1, 1800000004000000000, 1800000005000000000, 2, '{"log-signal":{"signal":15,"pid":1,"program":"","sender":"init","at":null}}');
INSERT INTO ending VALUES
    (1, '01010101-0101-0101-0101-010101010101', 'vm-1', 1800000001000000000, NULL, 1800000011000000000,
     'admin-destroyed', 'certain', 'S4', '[0,1]', '[2]', 0, 4, 'Admin shut down from the engine', NULL, NULL, 3),
    (2, '02020202-0202-0202-0202-020202020202', 'vm-2', 1800000002000000000, 1800000005000000000, 1800000012000000000,
     'host-lost', 'probable', 'G1', '[0]', '[]', 1, 1, 'The host went down', 1800000500000000000, 'engine', 0);
