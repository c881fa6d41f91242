-- Who left which address for which, so that it can be taken back for a while. The link that does it is derived from
-- `id` and the old address, and is stored nowhere.
create table moves (
    id          text primary key,
    user_id     text not null references users (id) on delete cascade,
    n           bigint not null,            -- a person's first, second, …: which came later, whatever clocks say
    old_address text not null,
    new_address text not null,
    key_id      text not null,
    moved_at    bigint not null,
    expires_at  bigint not null,
    ended_at    bigint                      -- taken back, or one before it was
) without rowid;
create index moves_user on moves (user_id, n);
create index moves_old on moves (old_address);
