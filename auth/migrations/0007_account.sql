-- What a person sees of their sessions: the kind of device in words of ours (agents.py), and the network in
-- which it began, never a whole address.
alter table sessions add column kind text not null default '';
alter table sessions add column network text not null default '';
-- 1: the person chose their time zone; then no browser changes it.
alter table users add column zone_chosen bigint not null default 0;
