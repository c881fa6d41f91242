-- SQLite has nothing to be vacuumed for.
select 1;
