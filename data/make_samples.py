"""Write the sample reviews as CSV, Parquet and JSONL, next to this script.

The three files hold the same rows: short product reviews in a dozen languages, with the commas, quotes, line breaks
and emoji that real ones have. Run it again and every byte is the same: ``python data/make_samples.py``.
"""

import csv
import json
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("product", pa.string()),
        ("stars", pa.int64()),
        ("review", pa.string()),
        ("language", pa.string()),
    ]
)


class Row(TypedDict):
    """One row of the samples, its keys in the order of the columns."""

    id: int
    product: str
    stars: int | None
    review: str
    language: str


# Language (ISO 639-1) -> its reviews: product, stars (None: the customer gave none), text.
REVIEWS: dict[str, tuple[tuple[str, int | None, str], ...]] = {
    "en": (
        ("headphones", 5, "Great sound for the price, and the battery easily lasts me a whole working week."),
        ("kettle", 2, "It boils quickly, but the lid started leaking after a month. I expected better."),
        ("running shoes", 4, "Comfortable right out of the box; I'd just recommend ordering half a size up."),
        ("tent", 1, 'They call it "waterproof". We woke up in a puddle at three in the morning.'),
        ("novel", 5, "I couldn't put it down and finished the whole thing on a single train journey."),
        ("desk lamp", 3, "Nice warm light, although the switch feels cheap and the cord is far too short."),
        ("keyboard", 4, "The keys are quiet enough for the office, and my wrists don't hurt any more."),
        (
            "coffee grinder",
            5,
            "Pros: quiet, easy to clean, looks lovely on the counter.\nCons: none that I have noticed so far.",
        ),
        ("suitcase", 1, "One of the wheels broke off on the very first trip, and nobody answers my emails."),
        ("umbrella", 3, "Good in the rain, useless in the wind. It turned inside out twice on my way to work."),
        ("board game", 5, "My kids ask for it every single evening, and we still haven't grown tired of it!"),
        ("blender", 2, "Much louder than I thought it would be, and it struggles with frozen fruit."),
        ("backpack", 4, 'Plenty of pockets, sturdy zips, and my 15.6" laptop fits with room to spare.'),
        ("pillow", None, "I have only slept on it for two nights, so it is too early to give it a rating."),
        ("power bank", 4, "Charges my phone about three times before it needs to be plugged in again."),
        (
            "vacuum cleaner",
            5,
            (
                "We have two dogs and a long-haired cat, and this is the first vacuum cleaner that "
                "gets their hair out of the carpet. Worth every penny."
            ),
        ),
        ("sunglasses", 3, "They look exactly like the picture, but they keep sliding down my nose."),
    ),
    "de": (
        ("kettle", 4, "Schnell, leise und leicht zu entkalken. Nur das Kabel könnte etwas länger sein."),
        ("backpack", 5, "Sitzt auch nach zwanzig Kilometern noch bequem, und der Regenschutz ist gleich dabei."),
        ("printer", 1, "Nach drei Wochen zieht er kein Papier mehr ein. Der Kundendienst? Nicht zu erreichen!"),
        ("novel", 3, "Der Anfang ist spannend, aber ab der Mitte zieht sich die Geschichte leider sehr."),
        ("frying pan", 5, "Endlich eine Pfanne, in der wirklich nichts anbrennt. Ich würde sie wieder kaufen."),
        ("bicycle lock", 2, "Das Schloss ist schwer und klemmt bei Kälte, außerdem klappert die Halterung."),
        ("mattress", 4, "Am Anfang roch sie etwas streng, inzwischen schlafen wir beide hervorragend darauf."),
        ("headphones", None, "Ich habe sie verschenkt und kann deshalb noch nichts über den Klang sagen."),
        ("tent", 5, "Steht in fünf Minuten und hat das Gewitter am Bodensee trocken überstanden."),
        (
            "toaster",
            2,
            "Auf Stufe zwei bleibt das Brot weiß, auf Stufe drei ist es schwarz. Dazwischen ist nichts.",
        ),
        ("keyboard", 4, 'Guter Anschlag, schönes Licht. Die Taste "ß" hakte zuerst, jetzt geht sie.'),
        ("raincoat", 3, "Die Jacke hält dicht, fällt aber so klein aus, dass ich sie umtauschen musste."),
        (
            "coffee grinder",
            5,
            "Liebe Grüße an das Team!\nDie Mühle läuft seit einem Jahr jeden Morgen ohne Probleme.",
        ),
        ("desk lamp", 1, "Sie flackert, sobald man sie dimmt. Für diesen Preis ist das eine Frechheit."),
        ("yoga mat", 4, "Rutschfest, angenehm dick und ohne Chemiegeruch, dafür beim Tragen etwas schwer."),
        ("watch", 5, "Mein Mann trägt sie seit Weihnachten täglich und hat sie noch kein einziges Mal gestellt."),
        (
            "garden hose",
            2,
            (
                "Der Schlauch knickt ständig ab, und nach dem ersten Sommer ist die Kupplung undicht. "
                "Wir haben jetzt wieder den alten im Einsatz."
            ),
        ),
    ),
    "fr": (
        ("novel", 5, "Je l'ai lu d'une traite pendant les vacances, et la fin m'a vraiment bouleversée."),
        ("suitcase", 4, "Légère, solide et bien pensée ; dommage que la fermeture soit un peu dure."),
        ("headphones", 2, "Le son est correct, mais ils font mal aux oreilles au bout d'une heure."),
        ("frying pan", 1, "Le revêtement s'est décollé dès le premier mois, je suis très déçue de cet achat."),
        ("tent", 3, "Facile à monter, beaucoup moins facile à replier dans son sac quand il pleut."),
        ("kettle", 5, "Elle chauffe vite, ne fait presque pas de bruit et reste très jolie dans la cuisine."),
        ("speaker", 4, "Petite mais puissante : on l'emporte partout, de la salle de bains à la plage."),
        ("running shoes", 3, 'La couleur "bleu nuit" est en réalité violette, mais elles sont confortables.'),
        ("pillow", 5, "Depuis que je l'utilise, je n'ai plus mal au cou le matin. Merci, merci, merci !"),
        ("printer", None, "Reçue hier, pas encore installée ; je compléterai mon avis dans quelques jours."),
        ("umbrella", 1, "Il s'est cassé au premier coup de vent. À éviter si vous habitez en Bretagne !"),
        ("board game", 4, "Les règles sont simples, les parties sont courtes et toute la famille s'amuse."),
        ("watch", 5, "Offerte à mon père pour ses soixante ans : il ne la quitte plus, même pour dormir. ❤️"),
        ("blender", 2, "Il fait un bruit d'avion, et le joint est presque impossible à nettoyer."),
        ("desk lamp", 4, "La lumière est douce et réglable, c'est parfait pour lire le soir au lit."),
        (
            "coffee grinder",
            3,
            (
                "La mouture est régulière, mais le réservoir est trop petit : il faut le remplir "
                "chaque matin quand on est quatre à la maison."
            ),
        ),
        ("backpack", 5, "J'ai fait le tour de la Corse avec, et pas une couture n'a lâché."),
    ),
    "es": (
        ("running shoes", 5, "Son muy cómodas desde el primer día, he corrido con ellas una media maratón."),
        ("toaster", 3, "Tuesta bien el pan, pero las migas se caen por debajo y ensucian la encimera."),
        ("novel", 4, "Una historia preciosa, aunque el final me pareció un poco precipitado."),
        ("speaker", 1, "¡Qué decepción! Se apagó a los dos días y no ha vuelto a encenderse."),
        ("yoga mat", 5, "No resbala nada, se limpia con un paño húmedo y además huele bien."),
        ("keyboard", 2, 'La tecla "ñ" dejó de funcionar a la semana, y el soporte tarda mucho en contestar.'),
        ("thermos", 5, "El café sigue caliente por la tarde, justo lo que necesitaba para la oficina."),
        ("tent", 4, "Es amplia y muy fácil de montar, pero pesa demasiado para llevarla a la montaña."),
        ("headphones", 3, "Buen sonido, diseño bonito, batería floja: apenas duran cuatro horas."),
        ("suitcase", 5, "Cabe muchísima ropa y las ruedas giran sin hacer ruido por el aeropuerto."),
        ("mattress", None, "Todavía no puedo opinar, porque el repartidor lo entregó ayer por la noche."),
        ("raincoat", 2, "La talla no corresponde con la tabla y las mangas me quedan cortas."),
        ("coffee grinder", 4, "Muele fino y rápido; eso sí, hay que sujetarla bien para que no se mueva."),
        ("desk lamp", 5, "Mi hija la usa para estudiar y dice que ya no le lloran los ojos."),
        (
            "vacuum cleaner",
            1,
            (
                "La batería no aguanta ni para limpiar el salón, y cuando pedí la devolución me dijeron "
                "que había pasado el plazo. No la compréis."
            ),
        ),
        ("webcam", 3, "La imagen es nítida de día, pero con poca luz apenas se me ve la cara."),
        ("bicycle lock", 4, "Robusto y fácil de usar, lo llevo todos los días al trabajo sin problemas."),
    ),
    "it": (
        ("coffee grinder", 5, "Macina in modo uniforme e finalmente il caffè di casa è buono come quello del bar."),
        ("desk lamp", 2, "La luce è troppo fredda, e dopo pochi giorni ha cominciato a ronzare."),
        ("running shoes", 4, "Sono leggere e molto comode, ma la suola si consuma un po' troppo in fretta."),
        ("headphones", 5, "L'audio è pulito, i bassi sono profondi e la custodia è davvero elegante."),
        ("umbrella", 1, "Si è rotto dopo dieci minuti di pioggia: soldi buttati, non lo consiglio a nessuno."),
        ("novel", 3, "Scritto bene, però i personaggi non mi hanno mai convinto fino in fondo."),
        ("kettle", 4, "Bella da vedere e veloce; peccato che il manico diventi così caldo."),
        ("board game", 5, "Ci abbiamo giocato tutto il fine settimana, anche la nonna si è divertita!"),
        ("backpack", 3, 'Dicono che sia "impermeabile", ma i miei quaderni si sono bagnati lo stesso.'),
        ("blender", 4, "Frulla tutto senza fatica, anche il ghiaccio, e si lava in un attimo."),
        ("printer", 1, "Le cartucce costano più della stampante e si esauriscono dopo venti pagine."),
        ("pillow", 5, "Morbido ma sostenuto, dormo meglio e mi sveglio senza mal di testa."),
        ("watch", None, "È un regalo per mia sorella, aspetto di sapere che cosa ne pensa."),
        (
            "mattress",
            4,
            (
                "All'inizio mi sembrava troppo rigido, ma dopo una settimana mi sono abituato e adesso "
                "non tornerei più a quello vecchio."
            ),
        ),
        ("tent", 2, "Mancavano due picchetti e le istruzioni erano scritte soltanto in cinese."),
        ("sunglasses", 5, "Bellissimi, resistenti e arrivati con due giorni d'anticipo. Grazie mille!"),
        ("frying pan", 3, "Non attacca, questo è vero, però è così pesante che devo usare due mani."),
    ),
    "pt": (
        ("tent", 4, "Montámos a tenda em poucos minutos e não entrou água, apesar da chuva toda."),
        ("headphones", 1, "O lado esquerdo deixou de funcionar na primeira semana. Não recomendo a ninguém."),
        ("blender", 5, "Faz sopas e sumos ótimos, não salpica e é muito fácil de limpar depois."),
        ("suitcase", 3, "É bonita e espaçosa, mas os fechos não parecem muito resistentes."),
        ("novel", 5, "Há muito tempo que um livro não me fazia rir e chorar na mesma página."),
        ("running shoes", 2, "São bonitos, mas apertam nos dedos e não consigo correr mais de meia hora."),
        ("thermos", 4, "Mantém o chá quente até ao fim da tarde; só a tampa é um pouco difícil de abrir."),
        ("keyboard", 5, 'Silencioso, confortável e com o "ç" no sítio certo. Não preciso de mais nada!'),
        ("vacuum cleaner", 3, "Aspira bem o chão, mas nos tapetes deixa muito a desejar."),
        ("raincoat", None, "Ainda não choveu desde que o comprei, por isso não sei dizer se é bom."),
        ("kettle", 2, "A água fica com um sabor estranho a plástico, mesmo depois de várias lavagens."),
        ("speaker", 5, "Levei a coluna para a praia e toda a gente perguntou onde é que a comprei."),
        ("pillow", 3, "Não é má, mas esperava que fosse mais alta e que não aquecesse tanto."),
        ("bicycle lock", 1, "A chave partiu-se dentro do cadeado e tive de chamar um serralheiro."),
        (
            "board game",
            4,
            (
                "As peças são de boa qualidade e as ilustrações são lindas, mas as instruções estão mal "
                "traduzidas e demorámos uma hora a percebê-las."
            ),
        ),
        ("power bank", 5, "Carrega o telemóvel três vezes, é leve e cabe em qualquer bolso."),
        ("frying pan", 4, "Já a uso há seis meses, todos os dias, e continua como nova."),
    ),
    "nl": (
        ("bicycle lock", 5, "Stevig slot, makkelijk mee te nemen, en mijn fiets staat er nog steeds."),
        ("novel", 2, "Ik had er veel van verwacht, maar na honderd bladzijden ben ik toch gestopt."),
        ("raincoat", 4, "Blijft droog van binnen, ook na een uur fietsen in de stromende regen."),
        ("coffee grinder", 3, "De koffie smaakt prima, alleen maakt het apparaat 's ochtends een hels kabaal."),
        ("desk lamp", 5, "Mooi ontwerp en fijn licht; hij staat nu naast mijn bed én op kantoor."),
        ("headphones", 4, "Het geluid is uitstekend, maar ze zitten niet lekker met een bril op."),
        ("tent", 1, "De stokken braken al bij de eerste keer opzetten, en we krijgen ons geld niet terug."),
        ("kettle", 5, "Binnen twee minuten heet water, en hij schakelt netjes vanzelf uit."),
        ("backpack", 3, "Genoeg ruimte, maar de rits blijft steeds hangen als de tas helemaal vol zit."),
        ("mattress", None, "Hij ligt er pas sinds gisteren, dus ik kan er nog weinig over zeggen."),
        ("blender", 4, "Werkt goed voor smoothies en soep. Let op: het deksel gaat soms moeilijk open."),
        ("watch", 2, '"Zwitserse kwaliteit" staat er op de doos, maar hij loopt elke dag vijf minuten achter.'),
        ("toaster", 5, "Precies goed gebakken brood, elke ochtend weer. Wij zijn er erg blij mee!"),
        ("garden hose", 3, "De slang is lang genoeg voor onze tuin, maar er komen steeds knikken in."),
        (
            "running shoes",
            4,
            (
                "Na een week inlopen zitten ze heerlijk en heb ik geen last meer van mijn knieën. "
                "Ze vallen wel klein uit, dus bestel een maat groter."
            ),
        ),
        ("yoga mat", 1, "Stinkt verschrikkelijk naar rubber, zelfs nadat hij een week buiten heeft gehangen."),
        ("board game", 5, "Leuk spel voor het hele gezin, we hebben het al meer dan twintig keer gespeeld."),
    ),
    "pl": (
        ("thermos", 5, "Herbata jest gorąca nawet po dziesięciu godzinach, a nakrętka w ogóle nie przecieka."),
        ("keyboard", 4, "Klawisze chodzą cicho i miękko, tylko kabel mógłby być trochę dłuższy."),
        ("tent", 2, "Rozkłada się szybko, ale po pierwszej burzy mieliśmy w środku pełno wody."),
        ("headphones", 5, "Świetny dźwięk, wygodne nauszniki i długi czas pracy. Polecam każdemu!"),
        ("vacuum cleaner", 1, "Zepsuł się po dwóch tygodniach, a reklamacja ciągnie się już trzeci miesiąc."),
        ("novel", 4, "Wciągająca od pierwszej strony, chociaż zakończenie trochę mnie rozczarowało."),
        ("frying pan", 3, "Na początku nic nie przywierało, teraz bez oleju nie da się usmażyć jajka."),
        ("backpack", 5, "Chodzę z nim po górach od roku i wygląda, jakby był prosto ze sklepu."),
        ("kettle", None, "Kupiony na prezent, więc jeszcze nie wiem, jak sprawdza się w kuchni."),
        ("desk lamp", 4, "Ładnie wygląda na biurku, a światło nie męczy oczu podczas nauki."),
        ("running shoes", 2, 'Rozmiar "42" to w rzeczywistości 41, musiałem odesłać buty i czekać na nowe.'),
        ("suitcase", 3, "Pojemna i lekka, ale kółka bardzo hałasują na chodniku."),
        ("pillow", 5, "Wreszcie się wysypiam! Kark przestał mnie boleć już po kilku nocach."),
        ("printer", 1, "Ciągle gubi połączenie z siecią i drukuje puste kartki. Szkoda pieniędzy."),
        ("board game", 4, "Zasady są proste, a rozgrywka trwa niecałą godzinę, więc dzieci się nie nudzą."),
        (
            "coffee grinder",
            5,
            (
                "Młynek jest cichy, dokładnie mieli i łatwo się go czyści. Po roku codziennego używania "
                "nie mam do niego żadnych zastrzeżeń."
            ),
        ),
        ("umbrella", 3, "Nie boi się wiatru, jednak po złożeniu nie mieści się w torebce."),
    ),
    "ru": (
        ("vacuum cleaner", 4, "Хорошо собирает шерсть с ковра, но контейнер приходится чистить каждый день."),
        ("novel", 5, "Прочитала за один вечер, не могла оторваться. Жду продолжения с нетерпением!"),
        ("kettle", 1, "Через месяц перестал включаться, а в магазине сказали, что гарантия не действует."),
        ("running shoes", 5, "Очень лёгкие и удобные, бегаю в них каждое утро, ноги совсем не устают."),
        ("headphones", 3, "Звук хороший, но микрофон слабый: собеседники постоянно меня переспрашивают."),
        ("tent", 4, "Ставится быстро, дождь не пропускает, только внутри тесновато для троих."),
        ("keyboard", 2, "Буквы стёрлись уже через полгода, печатать вслепую я так и не научился."),
        ("desk lamp", 5, "Светит ярко, глаза не устают, и выглядит на столе замечательно."),
        ("blender", 3, 'Продавец обещал "почти бесшумную работу", а соседи уже стучат по батарее.'),
        ("backpack", 4, "Вместительный рюкзак, много карманов; жаль, что молния иногда заедает."),
        ("watch", 5, "Подарил жене на день рождения, она в восторге и носит их не снимая."),
        ("mattress", 2, "Слишком мягкий, после сна болит спина. Пришлось вернуть и заказать другой."),
        ("thermos", 5, "Держит тепло целые сутки, брали с собой на зимнюю рыбалку."),
        ("webcam", None, "Пока только распаковал и подключил, подробный отзыв напишу позже."),
        (
            "suitcase",
            1,
            (
                "Ручка сломалась ещё по дороге в аэропорт, замок открывается сам, а деньги возвращать "
                "отказываются. Никому не советую."
            ),
        ),
        ("umbrella", 4, "Большой, крепкий, закрывает даже рюкзак, но в сумку, конечно, не помещается."),
        ("board game", 5, "Играем всей семьёй по выходным, дети в полном восторге, да и взрослые тоже."),
    ),
    "ja": (
        ("pillow", 5, "届いたその日から使っていますが、肩こりが楽になり、朝までぐっすり眠れるようになりました。"),
        ("headphones", 4, "音質はとても良いです。ただ、長い時間つけていると耳が少し痛くなるのが残念でした。"),
        ("kettle", 5, "お湯が沸くのがとても早くて、毎朝コーヒーをいれるのが楽しみになりました。買ってよかったです。"),
        ("umbrella", 1, "一度強い風に吹かれただけで骨が折れてしまいました。もう二度とこの店では買わないと思います。"),
        (
            "running shoes",
            3,
            "軽くて走りやすいのですが、サイズが少し小さめなので、大きめを選ぶほうがいいと思います。",
        ),
        ("novel", 5, "最後の一行まで目が離せませんでした。読み終わったあと、すぐに友達にもすすめてしまいました。"),
        ("desk lamp", 2, "明るさは十分ですが、スイッチを入れるたびに「ジー」という音がして、とても気になります。"),
        ("keyboard", 4, "キーが静かで打ちやすく、夜中に仕事をしていても家族を起こさずにすむので助かっています。"),
        ("tent", 5, "一人でも十分ほどで組み立てられました。雨の中でも水は入らず、快適に過ごすことができました。"),
        ("suitcase", 3, "見た目はかわいいのですが、車輪の音が大きくて、夜の住宅街では少し恥ずかしいです。"),
        ("blender", None, "母へのプレゼントとして購入したので、使い心地についてはまだ聞くことができていません。"),
        ("backpack", 4, "ポケットが多くて便利です。13インチのパソコンも、お弁当も、水筒もきれいに入ります。"),
        ("printer", 1, "設定がとても難しく、電話で問い合わせても全然つながりません。結局、返品することにしました。"),
        ("board game", 5, "子どもから祖父母までみんなで楽しめました。お正月に家族で集まるときにぴったりのゲームです！"),
        ("thermos", 4, "朝に入れたお茶が夕方でもまだ温かいです。ふたがもう少し洗いやすければ完璧だと思います。"),
        (
            "vacuum cleaner",
            2,
            "吸う力は強いのですが、本体が重すぎて、掃除のたびに二階まで持って上がるのが本当に大変です。",
        ),
        ("frying pan", 5, "卵がまったくくっつかず、洗うのも簡単です。もっと早く買えばよかったと思っています。"),
    ),
    "zh": (
        ("keyboard", 5, "手感非常好，声音也不大，在办公室里用不会影响同事，连续打一整天的字手腕也不觉得累。"),
        ("tent", 2, "搭起来倒是很方便，可是晚上下了一场小雨，里面就全湿了，我们只好半夜跑回车里睡觉。"),
        ("headphones", 4, "音质比我想象的好很多，电池也很耐用，就是戴久了耳朵会有点热，夏天不太适合长时间使用。"),
        ("novel", 5, "这本书我一口气读完了，故事写得很感人，看到最后忍不住哭了，已经推荐给身边的好几个朋友。"),
        ("kettle", 1, "刚用了不到一个星期就开始漏水，联系客服也一直没有人回复，质量实在太差了，大家不要买。"),
        ("running shoes", 3, "鞋子很轻，颜色也好看，不过尺码偏小，我平时穿四十二码，这次其实应该买大一号才对。"),
        ("desk lamp", 5, "灯光柔和不刺眼，亮度可以慢慢调节，孩子每天晚上写作业都用它，眼睛不像以前那么容易累了。"),
        ("backpack", 4, "容量很大，电脑、水杯和雨伞都放得下，背着也舒服，唯一的缺点就是拉链有时候会卡住。"),
        ("blender", 3, "打果汁没有问题，但是声音太大了，早上用的时候总怕吵醒邻居，清洗起来也比较麻烦一些。"),
        ("pillow", None, "昨天晚上才收到，还没有正式使用，先不打分，等睡上几天以后再来告诉大家效果怎么样。"),
        ("watch", 5, "买来送给爸爸的生日礼物，他非常喜欢，每天都戴着出门，逢人就说这是女儿送给他的。😊"),
        ("suitcase", 2, "第一次出差轮子就坏了一个，只能一路拖着走，客服说要我自己付运费才可以寄回去修理。"),
        ("coffee grinder", 4, "磨出来的咖啡粉很均匀，操作也简单，就是容量小了一点，家里来客人的时候要磨好几次。"),
        ("umbrella", 1, "页面上写着“抗风”，结果第一天出门就被风吹翻了，伞骨断了两根，回家的路上全身都淋湿了。"),
        ("board game", 5, "规则很容易学会，全家人一起玩了整个周末，连平时只看手机的儿子都舍不得离开桌子了。"),
        ("mattress", 4, "刚开始觉得有点硬，睡了一个星期以后就习惯了，现在早上起来腰也不疼了，总的来说很满意。"),
        ("thermos", 3, "保温效果还可以，早上装的热水到下午还是温的，但是盖子太紧了，我妈妈一个人打不开。"),
    ),
    "ar": (
        ("watch", 5, "ساعة جميلة جدا وأنيقة، أهديتها لوالدي في عيد ميلاده وأعجبته كثيرا."),
        ("blender", 3, "الخلاط قوي ويطحن كل شيء بسرعة، لكن صوته مرتفع جدا ويزعج الجيران."),
        ("tent", 4, "الخيمة واسعة وسهلة التركيب، ولم يدخلها الماء رغم المطر الغزير طوال الليل."),
        ("novel", 5, "رواية رائعة لا يمكن أن تتركها قبل أن تصل إلى الصفحة الأخيرة، أنصح الجميع بقراءتها."),
        ("headphones", 2, "الصوت مقبول، ولكن البطارية تنتهي بعد ساعتين فقط من الاستخدام."),
        ("suitcase", 1, "انكسرت العجلة في أول رحلة، ولم يرد أحد على رسائلي. تجربة سيئة للغاية!"),
        ("running shoes", 4, "الحذاء خفيف ومريح في المشي، غير أن المقاس أصغر قليلا من المعتاد."),
        ("kettle", 5, "تغلي الماء في دقيقتين وتتوقف وحدها، أستعملها كل صباح لإعداد الشاي."),
        ("desk lamp", 3, "الإضاءة جيدة للقراءة، لكن السلك قصير ولا يصل إلى المقبس بجانب السرير."),
        ("keyboard", 4, "لوحة مفاتيح ممتازة، والحروف العربية واضحة، والكتابة عليها مريحة وهادئة."),
        ("frying pan", None, "وصلت المقلاة اليوم ولم أجربها بعد، سأكتب رأيي بعد أسبوع من الاستعمال."),
        ("backpack", 5, "حقيبة عملية فيها جيوب كثيرة، وتتسع للحاسوب والكتب وزجاجة الماء. شكرا لكم!"),
        ("pillow", 2, 'كتبوا أنها "طبية"، لكنني أستيقظ كل يوم مع ألم شديد في الرقبة.'),
        ("vacuum cleaner", 4, "تنظف السجاد جيدا وتزيل شعر القطط بسهولة، إلا أنها ثقيلة بعض الشيء."),
        (
            "printer",
            1,
            (
                "الطابعة تتوقف كل مرة قبل أن تنتهي الصفحة، والحبر غالي الثمن وينفد بسرعة، "
                "وخدمة العملاء لا تجيب على الهاتف أبدا."
            ),
        ),
        ("board game", 5, "لعبة مسلية للكبار والصغار، نقضي معها أجمل الأوقات في نهاية الأسبوع."),
        ("coffee grinder", 3, "تطحن القهوة بشكل جيد، ولكن تنظيفها صعب ويأخذ وقتا طويلا كل مرة."),
    ),
}


def rows() -> list[Row]:
    """Take the languages in turn, so that the top of a file shows all of them."""
    return [
        Row(id=number, product=product, stars=stars, review=review, language=language)
        for number, (language, (product, stars, review)) in enumerate(
            (
                pair
                for one_of_each in zip(*REVIEWS.values(), strict=True)
                for pair in zip(REVIEWS, one_of_each, strict=True)
            ),
            start=1,
        )
    ]


def write_csv(samples: list[Row], path: Path) -> None:
    """Write the samples as CSV; a missing number of stars is an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, SCHEMA.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(samples)


def write_parquet(samples: list[Row], path: Path) -> None:
    """Write the samples as Parquet."""
    pq.write_table(pa.Table.from_pylist(samples, schema=SCHEMA), path, compression="snappy")


def write_jsonl(samples: list[Row], path: Path) -> None:
    """Write the samples as one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)


def main() -> None:
    """Write all three files."""
    samples = rows()
    write_csv(samples, HERE / "reviews.csv")
    write_parquet(samples, HERE / "reviews.parquet")
    write_jsonl(samples, HERE / "reviews.jsonl")
    print(f"{len(samples)} reviews in {len(REVIEWS)} languages -> {HERE / 'reviews.{csv,parquet,jsonl}'}")


if __name__ == "__main__":
    main()
