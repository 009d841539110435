-- Undo of the package store: every package is lost.
DROP TABLE package_grants;
DROP TABLE package_chunks;
DROP TABLE packages;
