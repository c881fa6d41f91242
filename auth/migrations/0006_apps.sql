-- A program's session: its way in is a refresh token, which is derived from id and generation and stored
-- nowhere. In `token` stands its own id, which no cookie can be the digest of.
alter table sessions add column app bigint not null default 0;         -- 1: a program's
alter table sessions add column generation bigint not null default 0;  -- of the refresh token that is next
alter table sessions add column key_id text not null default '';       -- what that one is derived with
alter table sessions add column rotated_at bigint not null default 0;
alter table sessions add column tenant text not null default '';       -- chosen last; '' for none

create table tenants (
    id         text primary key,
    name       text not null,
    created_at bigint not null
);

create index tenants_name on tenants (name, id);

create table memberships (
    tenant_id  text not null references tenants (id) on delete cascade,
    user_id    text not null references users (id) on delete cascade,
    role       text not null references roles (name),  -- inside this tenant
    created_at bigint not null,
    primary key (tenant_id, user_id)
);
create index memberships_user on memberships (user_id);

-- People who test an app for its store and can't read its mail: they have a code that stays the same.
create table reviewers (
    user_id    text primary key references users (id) on delete cascade,
    nonce      text not null,              -- their code is derived from it
    key_id     text not null,
    network    text not null,              -- CIDR that they come from
    created_at bigint not null,
    expires_at bigint not null
);
