-- Undo of uploads: everything that PCs sent is lost.
DROP TABLE upload_pieces;
DROP TABLE uploads;
