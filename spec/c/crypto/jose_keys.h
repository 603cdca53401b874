/* Keys made for these tests and used nowhere else: a private key in PEM form and the members of its
 * public JWK. */
#pragma once

/* clang-format off */
#define RSA_PEM \
    "-----BEGIN PRIVATE KEY-----\n" \
    "MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDOv9HhAmMZDv5/\n" \
    "+OKNZay9PmTFML0LIipJDKWqphSQEdbOZSFBnDoN2JgHzzBUfZQZP35x6KXsElHF\n" \
    "1MfKIghq9tWHxWg+FM/H7GB2fmJyiSD9w90Ig2MaYI5VkMYVO9d14irND7qNKr7M\n" \
    "HrsLQCrFdVR+VUqqZ9/uNHD0oVlLVa9VANgp7oDqCLDqoG+Fz5PsfVwRi9Haba/c\n" \
    "T4Aloxg8RTalwQAqzM+1T1JQZAt5U28MM8uJEN1W/XQzSEFAfgFFTYKLGX9sdO6k\n" \
    "Dk+W60L24yuyWZ2SCxCR37HJ4ux8vqaVS8+S/CYN9OH9bsR3wdkIx2tq8qZCcKMw\n" \
    "0I0p2xt/AgMBAAECggEAIJz9nILl4vQMjV9TTX62avvGpZx0lacECJXoJC0inT9T\n" \
    "JSeqwVDFj52VDdZPB2Tv0bPEXG+YjM6u+4f/JBGORmE9ebdYJELgK+dLqCVzniGn\n" \
    "hKA647bmESkeCr1Voc/Yww20Nri+crpFcql+U94BYTiK5YrKxmqwVkELeGtjTJCk\n" \
    "rR1Q395m4wviNhPdd/I06ibeTCXyIFI+Ts/SV0ikCOSAUFqVm1nWMd6G47rNiLao\n" \
    "WesxuhA1QnH5USZcNSXZ3QLGeosZTpBK9qAQCZ7vEBbqNLOMkpoVDObb/Cir+GnD\n" \
    "KZywToi5MYWilchP1M2J8U8UOHYloD0C9c7JUcmuUQKBgQD+ns9TeXXSVmzJBx3V\n" \
    "jeCsRc2AUtkrTnNX4dKy2u6+h8PY3Sj62UGRrG5swgsMNnIlaPNL1pchsSZJjpqO\n" \
    "d+Vo1zHoR7d0HYnLUYDalu6qgGAcKFX5CePIk3IxrYGurf+7G+NeAW6+uQm/2AFT\n" \
    "U/zA3HWJo6UOGh+rtvzVa1PD1QKBgQDP3ptbDuLMKERcuLfBDJf3JNXIwFOBGTeK\n" \
    "0MiMVfjcnSpRukIxcqQdmjgxObcdYpJqdYz5zBUDix2Mh0SevNthiK/+xLS08XkK\n" \
    "r3AfB9ZYM80Llid3zl14p1BOwfqFceQf1rf8A1ZvvrwuGK1XD7o60gI0y6b8ljLf\n" \
    "7kTbVtiQAwKBgQCiFob1JMUUeWAXOSiM4hy8jlMb9aG6J97VezSeFzEUqWjLjT6h\n" \
    "MdzD13kUUxKlW6OenQkEpj7fe95bxSQuvbSU4SksLTtj98nYXLIidSLJ9583TZYt\n" \
    "S1ZuQS7Y4RNFGA9MFZzQIylU0IacUe3GFhk4zR8l178jEw5GSd76HbDdYQKBgQCq\n" \
    "xOY8WG5Z6nq+8cGEBySRFOHMmrP/SwgmMn+PStG37CXoHmxi0xugdiHTzuZwbZp7\n" \
    "ezblwJNC5fbQjBADmINiDTkIw/Dw9a/K53XlCDs/Gs9IxYKHGjIP/OQsz49QMdCH\n" \
    "l45uqw9HnhpahEtjSrhjukO1u9jjiUEiVkybJS2koQKBgEfw07To3ga3cuYGBUcU\n" \
    "gikh19NOtjY7tKU7cjuRcaW92pTUZnLmbApaPzMVQVFIi3bsu+GYsgqPZTHDk6Nr\n" \
    "yCcr2c+9pG7zHeW0agY+Ll2CA5r8isF1jRLM+/mcRt1v4kO5L/tt96ZBxevLPRVk\n" \
    "fpnro66ZG6EyResvkqC+qDZp\n" \
    "-----END PRIVATE KEY-----\n"
#define RSA_N \
    "zr_R4QJjGQ7-f_jijWWsvT5kxTC9CyIqSQylqqYUkBHWzmUhQZw6DdiYB88wVH2UGT9-ceil7BJRxdTHyiIIavbV" \
    "h8VoPhTPx-xgdn5icokg_cPdCINjGmCOVZDGFTvXdeIqzQ-6jSq-zB67C0AqxXVUflVKqmff7jRw9KFZS1WvVQDY" \
    "Ke6A6giw6qBvhc-T7H1cEYvR2m2v3E-AJaMYPEU2pcEAKszPtU9SUGQLeVNvDDPLiRDdVv10M0hBQH4BRU2Cixl_" \
    "bHTupA5PlutC9uMrslmdkgsQkd-xyeLsfL6mlUvPkvwmDfTh_W7Ed8HZCMdravKmQnCjMNCNKdsbfw"
#define RSA_JWK \
    "\"kty\":\"RSA\"" "," \
    "\"n\":\"" RSA_N "\"" "," \
    "\"e\":\"AQAB\""
#define P256_PEM \
    "-----BEGIN PRIVATE KEY-----\n" \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHdM7VSTmu4uXaNmT\n" \
    "FFtUhgiDq+85W0H5Lu3S92MhE2KhRANCAATk0Bg2QBtB14IbOXGjdAGmigdaIs/B\n" \
    "3+Vzw8YpRa9diITXFyGvv8YTWoHvlijDK6LnN5wMXeZ3YIMGGakKgnR+\n" \
    "-----END PRIVATE KEY-----\n"
#define P256_JWK \
    "\"kty\":\"EC\"" "," \
    "\"x\":\"5NAYNkAbQdeCGzlxo3QBpooHWiLPwd_lc8PGKUWvXYg\"" "," \
    "\"y\":\"hNcXIa-_xhNage-WKMMrouc3nAxd5ndggwYZqQqCdH4\"" "," \
    "\"crv\":\"P-256\""
#define P384_PEM \
    "-----BEGIN PRIVATE KEY-----\n" \
    "MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDBcvd+KEj1bzUJC0v2k\n" \
    "wGejiTZZn3UFKXJVkNnirqIwSSpa5qBKH/mdRYi2d46WRk2hZANiAATzfLzkaMqP\n" \
    "ERtFE1xkoFVGFGF6P5YiNV5ONR2pDHGJ34XqkNFhQ/jnMP6yrINX/hlvV96CqZAN\n" \
    "yzrRgnPPrZD7iys9RnHX2XCNdHjTtGF+YEkJzJXSZADWd/I3+CVgvYs=\n" \
    "-----END PRIVATE KEY-----\n"
#define P384_JWK \
    "\"kty\":\"EC\"" "," \
    "\"x\":\"83y85GjKjxEbRRNcZKBVRhRhej-WIjVeTjUdqQxxid-F6pDRYUP45zD-sqyDV_4Z\"" "," \
    "\"y\":\"b1fegqmQDcs60YJzz62Q-4srPUZx19lwjXR407RhfmBJCcyV0mQA1nfyN_glYL2L\"" "," \
    "\"crv\":\"P-384\""
#define P521_PEM \
    "-----BEGIN PRIVATE KEY-----\n" \
    "MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBIwvNe1cem6KVpyef\n" \
    "v30KwkXJyUupvghQl4mBXFqcN+jPF1uuOdYIpOYSPZzu73Ougd0HCoLnQ3uUEj3n\n" \
    "uS6LG0+hgYkDgYYABAAK5am7op3Jc8HKUDd1mv2THbJ5x/k1bGzNUZfFeK2d5yLi\n" \
    "c2Nmt8rTOPctBFofLo6pOtQJW8QknouLfki9xL0ilwDZg48CgH9/cVq+UK4RW22g\n" \
    "MNlLWF2WIXCSxCmaBYivT7rmnXNw4JCL1DB6McaBb85m0cHGKv0jUgJ+lMrBR1pP\n" \
    "TA==\n" \
    "-----END PRIVATE KEY-----\n"
#define P521_JWK \
    "\"kty\":\"EC\"" "," \
    "\"x\":\"AArlqbuinclzwcpQN3Wa_ZMdsnnH-TVsbM1Rl8V4rZ3nIuJzY2a3ytM49y0EWh8ujqk61AlbxCSei4t-SL3EvSKX\"" "," \
    "\"y\":\"ANmDjwKAf39xWr5QrhFbbaAw2UtYXZYhcJLEKZoFiK9Puuadc3DgkIvUMHoxxoFvzmbRwcYq_SNSAn6UysFHWk9M\"" "," \
    "\"crv\":\"P-521\""
#define ED25519_PEM \
    "-----BEGIN PRIVATE KEY-----\n" \
    "MC4CAQAwBQYDK2VwBCIEIBbCZ2axIJFIS7wxnpa6ta4hvDaYsV5Zfa9qu+dhfrre\n" \
    "-----END PRIVATE KEY-----\n"
#define ED25519_JWK \
    "\"crv\":\"Ed25519\"" "," \
    "\"x\":\"CMzc46e9Gm7aW-jhw8shFxaJBvjQPRf27IEpFYRUX34\"" "," \
    "\"kty\":\"OKP\""
#define ED448_PEM \
    "-----BEGIN PRIVATE KEY-----\n" \
    "MEcCAQAwBQYDK2VxBDsEOXqfuhA2B1SC/SfDsWh3m4NzUDulIzRe1f3IGzolekkF\n" \
    "ltsdb4P8+3pVJBqj0eC5viOqsXtMH4G3JA==\n" \
    "-----END PRIVATE KEY-----\n"
#define ED448_JWK \
    "\"crv\":\"Ed448\"" "," \
    "\"x\":\"RulIp1TepgGdje-xJX73xVfRwgsLbK0dh7gk0SUbbLleezQL_pm3dTApxvkAKSEL6fC0ZEYT0MsA\"" "," \
    "\"kty\":\"OKP\""
/* One key of P-256 in other forms, and an RSA key of 1024 bits. */
#define SEC1_PEM \
    "-----BEGIN EC PRIVATE KEY-----\n" \
    "MHcCAQEEIBwtn5UuDTGARDQd9pNDE+gtmvCZK3kTAEwAsy63qOckoAoGCCqGSM49\n" \
    "AwEHoUQDQgAEqII9Nbq/d4zqLCBj4HjVsrCk79SLI247eoLpEiVgIlWn2+YXnvrO\n" \
    "GGIJv45zp19rE9prlonR4tRr9aU8ITzdkQ==\n" \
    "-----END EC PRIVATE KEY-----\n"
#define ENCRYPTED_PEM \
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\n" \
    "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgvJe/xs/wThQICCAAw\n" \
    "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEFi50wjptK/t9my9pHpO/R8EgZCX\n" \
    "rNTSAHdKH1oU4UAZOwto3UEPK7coPMjFUq0PGNIcdY2KWQ519x84bPvkff+u+tj4\n" \
    "Ocv1BlSFK4iUsf+uNrzaQLbDFeq+ocd5WOD3YBe6xqSPepvSMFG70fuZLvf4w4hu\n" \
    "2zcqIahECbzbdCFkgGses3fWokSI6KqDnIP+QcGPBj2M0bIyJ8rzacK5ofjAGXM=\n" \
    "-----END ENCRYPTED PRIVATE KEY-----\n"
#define PUBLIC_PEM \
    "-----BEGIN PUBLIC KEY-----\n" \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqII9Nbq/d4zqLCBj4HjVsrCk79SL\n" \
    "I247eoLpEiVgIlWn2+YXnvrOGGIJv45zp19rE9prlonR4tRr9aU8ITzdkQ==\n" \
    "-----END PUBLIC KEY-----\n"
#define WEAK_PEM \
    "-----BEGIN PRIVATE KEY-----\n" \
    "MIICeAIBADANBgkqhkiG9w0BAQEFAASCAmIwggJeAgEAAoGBAM3odLQFrb3kg0Kb\n" \
    "h0w+7QrnqqRT9rHGmzNh9DwcbUEN7VJ5CJg4vXd6fLkrvRPmT640+LpBm++IqsBQ\n" \
    "3DejdPXEcvAhY+gcBlPtdskXw2gAdwzH3OcjFvMSWvP1rsrVfxS88LW9ohc3wFOE\n" \
    "iupc2icabueuiky4XPLGKJ5q7bpLAgMBAAECgYEAnfgz6JTeuWuiBCzb/PPd2dro\n" \
    "AJBmF/d9xErnHGLWsu0jYH14yYfmW85993YF5klwYf9Dv2lsX7WjAk5G1OyzYiP7\n" \
    "u+g0ZKoT+Lt9L7j52dpOUvVGPebMwc4TlEUwd2IWibuCJBgYGPQCL/T/PekE+m9K\n" \
    "xXugek9IIlLVcojJ1xkCQQD806rVCa/yNYkEldFqjGToZKeXYLlsY2CbbmEPttpi\n" \
    "AE95dojPnU4L2esyfgzzjPIuTLuCk7601vGf780P8dldAkEA0H4J2BWe/upstTWy\n" \
    "Dvm+8Tt5DcEbi/L5f7CbwPbU22UCDpI5oIIqfIo22tMYoAwC/3xOFGZBHJOwBnJO\n" \
    "F9GfxwJBANRFIvka2Q6SxCeFYf4DQfWcDNmb7BKEnWfilLuM2m3NtOxWCSfG+vAY\n" \
    "VtBd5KHXhL46znQjd8p9bQDLZXAtrkECQQCgMnf15IcKb62ffuaVwygHyx60htBX\n" \
    "tBYpGtZSalYbTX1LHOfSgLGMh9amRNUDBLe4/xYvbnJRNtll2qZOfu85AkAPWNqZ\n" \
    "H5Kgs19VqZfdR9hSjiV+covV7lTpAplLZYg2SI8A/kxAUitAvJS4o7jkm9fsGxhM\n" \
    "vye1SPFmG6Dggg5V\n" \
    "-----END PRIVATE KEY-----\n"
#define WEAK_N \
    "zeh0tAWtveSDQpuHTD7tCueqpFP2scabM2H0PBxtQQ3tUnkImDi9d3p8uSu9E-ZPrjT4ukGb74iqwFDcN6N09cRy" \
    "8CFj6BwGU-12yRfDaAB3DMfc5yMW8xJa8_WuytV_FLzwtb2iFzfAU4SK6lzaJxpu566KTLhc8sYonmrtuks"
/* Has the remainders of a ROCA modulus; it is no product of two primes. */
#define ROCA_N \
    "gf8sBv27xHP1f0q7JZSleE_UnBSPssfyyAotGUTdteMdn7ZEjL_Ay7zdewjTrhUEvxFTNaHLXM3Ckti-TCT3UUT1" \
    "CWOld_N4kLFIuk9oVgisg5iS47lthswWbM1MKye343iyXA6zEtiQyD8AVuQro5XYqEX0M_zfxGFJJQnB2b7iKQom" \
    "rHTuBJ4tSH-wtKA0MwIiUJftdq1OjvHs1RDFh6aReQCOwgD-mdWW97JFA7JwgmBDLdAY8eJY4c_1yvDtTDmGIz6c" \
    "xcDRGdSutWlnsBEGgUifQv7chvgbFi2movtVX53fDSlfDqlurOpm7vM1gZXhiTM6PXTFUq-RcAER7Q"
