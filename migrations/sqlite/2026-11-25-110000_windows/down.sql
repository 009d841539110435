-- Undo of the tables of the Windows dialect: sessions, accounts and what is known to be set are lost.
DROP TABLE applied_settings;
DROP TABLE enrollment_account_uses;
DROP TABLE enrollment_accounts;
DROP TABLE protocol_states;
