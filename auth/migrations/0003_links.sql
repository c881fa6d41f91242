-- A challenge's `browser` is its own id once the browser that asked has gone on to another one: the link
-- in its mail still leads here, a cookie no more.
alter table challenges add column device text not null default '';           -- '' for a browser we don't know
alter table challenges add column link_only bigint not null default 0;       -- 1: six digits are not compared
alter table challenges add column mails bigint not null default 0;           -- counted against the address
alter table challenges add column mailed bigint not null default 1;          -- 0: a code that nobody was sent
alter table challenges add column linked bigint not null default 0;          -- 1: its mail has a link
alter table challenges add column link_expires_at bigint not null default 0;
