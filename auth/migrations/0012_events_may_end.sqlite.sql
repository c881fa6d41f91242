-- The record may be forgotten after 90 days, by this machine's clock and nobody else's word; changed never.
drop trigger events_no_delete;
create trigger events_no_delete before delete on events
when old.at > cast(strftime('%s', 'now') as integer) - 7776000
begin
    select raise(abort, 'events are append-only');
end;
-- `insert or replace` deletes without asking a trigger.
create trigger events_no_replace before insert on events
when exists (select 1 from events where id = new.id)
begin
    select raise(ignore);
end;
