-- A challenge's `browser` is its own id once the browser that asked has gone on to another one: the link
-- in its mail still leads here, a cookie no more.
alter table challenges add column device text not null default '';           -- '' for a browser we don't know
alter table challenges add column link_only bigint not null default 0;       -- 1: six digits are not compared
alter table challenges add column mails bigint not null default 0;           -- counted against the address
alter table challenges add column link_expires_at bigint not null default 0;
create index challenges_end on challenges (link_expires_at);

create table devices (
    id         text primary key,            -- the selector
    user_id    text not null references users (id) on delete cascade,
    verifier   text not null,               -- SHA-256
    previous   text not null default '',    -- SHA-256 of the one before, good for a minute more
    rotated_at bigint not null,
    created_at bigint not null,
    expires_at bigint not null
);
create index devices_user on devices (user_id);
create index devices_end on devices (expires_at);
create index sessions_end on sessions (expires_at);
