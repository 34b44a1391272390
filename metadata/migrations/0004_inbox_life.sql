-- What has to be told or done about inboxes, in the rows that say why, so that no crash forgets it.

ALTER TABLE clients
    -- Since when the client was away when it became idle: marked in its inbox when it is back, and NULL then.
    ADD COLUMN away_since timestamptz,
    -- What the client inherited ends at this sequence of its inbox's stream; known once it is not active.
    ADD COLUMN inherited_up_to bigint,
    -- How often its inbox was emptied since it is not active, and when last.
    ADD COLUMN sweeps smallint NOT NULL DEFAULT 0,
    ADD COLUMN swept_at timestamptz;

CREATE INDEX clients_to_sweep ON clients (swept_at) WHERE state <> 'active' AND sweeps < 3;

-- Who may do what only one process should do at a time. A holder that died loses it by Postgres' clock.
CREATE TABLE leases (
    name text PRIMARY KEY,
    holder uuid NOT NULL,
    expires_at timestamptz NOT NULL
);
