-- Rows as the version before wrote them: some in the middle of something.
INSERT INTO public.users (user_id, version, suspended_at) VALUES
    ('alice', 1, NULL), ('bob', 3, NULL), ('mallory', 2, clock_timestamp());
INSERT INTO public.clients (client_id, user_id, state, name, heir, away_since, inherited_up_to, sweeps, swept_at) VALUES
    ('0199c0de-0000-7000-8000-0000000000d1', 'alice', 'active', 'Pixel', true, NULL, NULL, 0, NULL),
    ('0199c0de-0000-7000-8000-0000000000d2', 'bob', 'idle', NULL, true, clock_timestamp() - interval '40 days', 17, 1, clock_timestamp()),
    ('0199c0de-0000-7000-8000-0000000000d3', 'bob', 'removed', NULL, false, NULL, 12, 3, clock_timestamp());
INSERT INTO public.chats (chat_id, kind, name, version, direct_low, direct_high) VALUES
    ('0199c0de-0000-7000-8000-00000000000c', 'group', 'Lunch', 2, NULL, NULL),
    ('0199c0de-0000-7000-8000-00000000000e', 'direct', NULL, 1, 'alice', 'bob');
INSERT INTO public.participants (chat_id, user_id, role, standing) VALUES
    ('0199c0de-0000-7000-8000-00000000000c', 'alice', 'admin', 1),
    ('0199c0de-0000-7000-8000-00000000000c', 'bob', 'member', 2),
    ('0199c0de-0000-7000-8000-00000000000e', 'alice', 'member', 1),
    ('0199c0de-0000-7000-8000-00000000000e', 'bob', 'member', 2);
-- The second change of the group is committed and not published.
INSERT INTO public.outbox (chat_id, user_id, version, change, seq, sent_at, superseded_at) VALUES
    ('0199c0de-0000-7000-8000-00000000000c', NULL, 1,
     '{"chatId":"0199c0de-0000-7000-8000-00000000000c","version":1,"kind":"group","name":"Lunch","by":"alice","at":"2026-11-25T03:33:49.123Z","added":["alice","mallory"],"removed":[],"participants":[{"userId":"alice","role":"admin"},{"userId":"mallory","role":"member"}]}',
     40, clock_timestamp(), NULL),
    ('0199c0de-0000-7000-8000-00000000000c', NULL, 2,
     '{"chatId":"0199c0de-0000-7000-8000-00000000000c","version":2,"kind":"group","name":"Lunch","by":"alice","at":"2026-11-25T03:33:50.123Z","added":["bob"],"removed":["mallory"],"participants":[{"userId":"alice","role":"admin"},{"userId":"bob","role":"member"}]}',
     NULL, NULL, NULL),
    ('0199c0de-0000-7000-8000-00000000000e', NULL, 1,
     '{"chatId":"0199c0de-0000-7000-8000-00000000000e","version":1,"kind":"direct","by":"alice","at":"2026-11-25T03:33:51.123Z","added":["alice","bob"],"removed":[],"participants":[{"userId":"alice","role":"member"},{"userId":"bob","role":"member"}]}',
     39, clock_timestamp(), NULL),
    (NULL, 'bob', 3, NULL, NULL, NULL, NULL);
INSERT INTO public.requests (user_id, request_id, fingerprint, chat_id, version, done) VALUES
    ('alice', '0199c0de-0000-7000-8000-000000000042', 7, '0199c0de-0000-7000-8000-00000000000c', 1, true);
INSERT INTO public.leases (name, holder, expires_at) VALUES
    ('expiry', '0199c0de-0000-7000-8000-000000000011', clock_timestamp());
INSERT INTO public.attachments (attachment_id, owner, hash, size, content_type, name, expires_at, uploads) VALUES
    ('0199c0de-0000-4000-8000-0000000000af', 'alice', decode(repeat('ab', 32), 'hex'), 300, 'image/png', 'cat.png', clock_timestamp() + interval '30 days', 1);
INSERT INTO public.blobs (blob_id, owner, hash, size, state, attachment_id, fence, received) VALUES
    ('0199c0de-0000-4000-8000-0000000000b1', 'alice', decode(repeat('ab', 32), 'hex'), 300, 'stored', NULL, '0199c0de-0000-4000-8000-0000000000f1', 300);
INSERT INTO public.grants (attachment_id, chat_id, version) VALUES
    ('0199c0de-0000-4000-8000-0000000000af', '0199c0de-0000-7000-8000-00000000000c', 1);
