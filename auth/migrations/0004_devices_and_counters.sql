create table devices (
    id         text primary key,            -- the selector
    user_id    text not null references users (id) on delete cascade,
    generation bigint not null default 0,   -- of the verifier
    verifier   text not null,               -- SHA-256
    previous   text not null default '',    -- SHA-256 of the one before, good for a minute more
    rotated_at bigint not null,
    created_at bigint not null,
    expires_at bigint not null
) without rowid;
create index devices_user on devices (user_id);

-- How often: one row for each (limit, window, subject), all three in the key. No index on the end: it
-- would be written at each count, and only tidying up asks for it.
create table counters (
    key     text primary key,
    n       bigint not null,
    most    bigint not null,                -- the limit when it was last counted
    ends_at bigint not null
) without rowid;
