-- A search reads an index alone where no row nearby has changed since the last vacuum. Each sign-in changes one, and by
-- itself PostgreSQL waits for a fifth of a million.
alter table users set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
