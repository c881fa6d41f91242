-- Times are UTC epoch seconds. Ids are random text. Secrets are never here: a code is derived when
-- it is needed, a token is kept as its SHA-256. `without rowid` saves SQLite a page for each row that is
-- written; PostgreSQL has no such thing, and does not get to read it.
create table roles (
    name        text primary key,
    description text not null default ''
);
insert into roles (name, description) values ('admin', 'Runs the site'), ('user', 'Signs in');

create table users (
    id           text primary key,
    address      text not null unique,      -- canonical, see addresses.py; mail goes here and nowhere else
    name         text not null default '',
    role         text not null default 'user' references roles (name),
    timezone     text not null default 'UTC',
    created_at   bigint not null,
    activated_at bigint,                    -- first sign-in
    signed_in_at bigint,
    disabled_at  bigint                     -- by an admin
);
create index users_role on users (role);

create table challenges (
    id          text primary key,
    browser     text not null unique,       -- SHA-256 of the sign-in cookie
    purpose     text not null,
    address     text not null,              -- canonical; may belong to nobody
    nonce       text not null,              -- 32 random bytes, hex
    key_id      text not null,
    generation  bigint not null default 0,
    code_tries  bigint not null default 0,  -- against this generation's code
    total_tries bigint not null default 0,  -- against any code of this challenge
    resends     bigint not null default 0,
    next_path   text not null,
    issued_at   bigint not null,
    sent_at     bigint not null,
    expires_at  bigint not null,
    used_at     bigint
) without rowid;
create index challenges_address on challenges (address);

create table sessions (
    id         text primary key,
    token      text not null unique,        -- SHA-256 of the session cookie
    user_id    text not null references users (id) on delete cascade,
    data       text not null default '{}',  -- the app's own, JSON
    created_at bigint not null,
    seen_at    bigint not null,
    expires_at bigint not null
) without rowid;
create index sessions_user on sessions (user_id);

create table events (
    id         text primary key,            -- sorts by time
    at         bigint not null,
    kind       text not null,               -- OWASP logging vocabulary where it has a word
    actor      text not null default '',    -- user id, or '' for a stranger or the command line
    subject    text not null default '',    -- the address it is about
    network    text not null default '',    -- /24 or /48 of the client
    request_id text not null default '',
    detail     text not null default ''
) without rowid;
create index events_subject on events (subject, id);
