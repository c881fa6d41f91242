-- Codes before notices, and what the workers of all processes tell each other.
alter table outbox add column lane bigint not null default 0;    -- 0: somebody waits for it; 1: it can wait
alter table outbox add column losses bigint not null default 0;  -- handed over, and the answer was lost
drop index outbox_due;
create index outbox_due on outbox (lane, next_at, id) where state in ('queued', 'sending');

create table outbox_status (
    name  text primary key,              -- 'paused', or 'worker ' and the id of a process
    value text not null,                 -- why its mail is held up, or ''
    at    bigint not null
);
