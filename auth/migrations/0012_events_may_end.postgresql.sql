-- The record may be forgotten after 90 days, by this machine's clock and nobody else's word; changed never.
create or replace function events_append_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        if old.at <= extract(epoch from now()) - 7776000 then
            return old;
        end if;
    end if;
    raise exception 'events are append-only';
end
$$;
