package mqlog.interop;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** Random messages from a seed: of every kind that a store can be asked for without a broker around it. */
final class Drafts {
    private static final int MAX_BODY_BYTES = 100 * 1024;
    private static final String[] TOPICS = {"orders", "payments-eu_west|1", "%RETRY%group_a", "主题-ü", "T"};
    private static final String LONG_TOPIC = "l".repeat(150);
    private static final String[] TAGS = {"TagA", "Aa", "BB", "polygenelubricants", "标签", "😀", "TagA || TagB"};
    private static final String[] KEYS = {"Aa", "BB", "AaAa", "BBBB", "key-1", "key-2", "ключ", "注文", "😀", "order/7"};
    private static final String[] NAMES = {"region", "trace", "内容", "a", "CLUSTER", "user.id"};
    private static final String[] VALUES = {"eu-west", "=", "中文 值", "😀👍🏽", "line1\nline2\ttab", "{\"k\":[1,\"x\"]}", "C:\\dir"};

    private final Random random;

    Drafts(long seed) {
        random = new Random(seed);
    }

    /** The messages of one put: one, or a client batch of at most {@code max}. */
    List<Draft> next(int max) throws Exception {
        List<Draft> drafts = new ArrayList<>();
        drafts.add(single());
        if (max > 1 && random.nextInt(12) == 0) {
            Draft first = drafts.get(0);
            first.sysFlag = 0;
            first.preparedTransactionOffset = 0;
            first.body = body(2000);
            for (int n = Math.min(max, 2 + random.nextInt(7)); drafts.size() < n; ) {
                drafts.add(member(first));
            }
        }
        return drafts;
    }

    private Draft single() throws Exception {
        Draft draft = new Draft();
        boolean longTopic = Release.LONG_TOPICS && random.nextInt(20) == 0;
        draft.topic = longTopic ? LONG_TOPIC : pick(TOPICS);
        draft.queueId = random.nextInt(30) == 0 ? 17 : random.nextInt(3);
        draft.bornMs = 1_700_000_000_000L + random.nextInt(1_000_000_000);
        draft.bornHost = host();
        draft.storeHost = random.nextInt(4) > 0 ? new InetSocketAddress("10.0.0.1", 10911) : host();
        draft.reconsumeTimes = random.nextInt(5) == 0 ? random.nextInt(17) : 0;
        draft.flag = random.nextInt(3) == 0 ? random.nextInt() : 0;
        int[] sysFlags = {0x1, 0x2, 0x101, 0x301, 0x4, 0x8, 0xC};
        draft.sysFlag = random.nextInt(8) == 0 ? sysFlags[random.nextInt(sysFlags.length)] : 0;
        draft.preparedTransactionOffset = draft.sysFlag == 0x8 ? random.nextInt(1 << 20) : 0;
        draft.body = body(MAX_BODY_BYTES);
        properties(draft);
        return draft;
    }

    private Draft member(Draft first) {
        Draft draft = new Draft();
        draft.topic = first.topic;
        draft.queueId = first.queueId;
        draft.bornMs = first.bornMs;
        draft.bornHost = first.bornHost;
        draft.storeHost = first.storeHost;
        draft.reconsumeTimes = first.reconsumeTimes;
        draft.flag = random.nextInt();
        draft.body = body(2000);
        properties(draft);
        return draft;
    }

    private void properties(Draft draft) {
        if (random.nextInt(4) > 0) {
            draft.properties.put("TAGS", pick(TAGS));
        }
        if (random.nextInt(3) > 0) {
            StringBuilder keys = new StringBuilder(pick(KEYS));
            while (random.nextInt(3) == 0) {
                keys.append(' ').append(pick(KEYS));
            }
            draft.properties.put("KEYS", keys.toString());
        }
        if (random.nextInt(2) == 0) {
            draft.properties.put("UNIQ_KEY", String.format("%016X%016X", random.nextLong(), random.nextLong()));
        }
        while (random.nextInt(2) == 0) {
            draft.properties.put(pick(NAMES), pick(VALUES));
        }
    }

    private byte[] body(int max) {
        int kind = random.nextInt(20);
        int bytes = kind == 0 ? 0 : kind == 1 ? max : kind < 15 ? random.nextInt(Math.min(max, 600))
            : kind < 18 ? random.nextInt(Math.min(max, 8000)) : random.nextInt(max);
        if (kind == 2) {
            return "body: 中文 😀\u0000\u0001\u0002".getBytes(StandardCharsets.UTF_8);
        }
        byte[] body = new byte[bytes];
        random.nextBytes(body);
        return body;
    }

    private InetSocketAddress host() throws Exception {
        byte[] ip = new byte[random.nextInt(3) == 0 ? 16 : 4];
        random.nextBytes(ip);
        if (ip.length == 16) {
            byte[] start = {0x20, 0x01, 0x0d, (byte) 0xb8};
            System.arraycopy(start, 0, ip, 0, start.length);
            int zeros = random.nextInt(10);
            for (int i = 4; i < 4 + zeros; i++) {
                ip[i] = 0;
            }
        }
        return new InetSocketAddress(InetAddress.getByAddress(ip), random.nextInt(65536));
    }

    private String pick(String[] from) {
        return from[random.nextInt(from.length)];
    }
}
